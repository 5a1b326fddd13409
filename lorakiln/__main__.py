"""`python -m lorakiln` is `kiln`."""

from lorakiln.cli import main

main()
