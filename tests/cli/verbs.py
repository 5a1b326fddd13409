"""`kiln` in this process, as a user runs it: what it exits with and what it prints."""

from lorakiln.cli import main


def kiln(capsys, *words):
    """(exit code, captured output) of one command."""
    try:
        main([str(word) for word in words])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, capsys.readouterr()
