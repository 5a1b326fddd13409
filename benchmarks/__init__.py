"""What the performance page's numbers are measured with, side by side with the peers."""

import os

os.environ.setdefault("KILN_LEDGER", "off")  # what is trained to be timed is nobody's experience
