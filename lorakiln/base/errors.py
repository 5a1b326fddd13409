"""What Kiln says when the user's input cannot be used: one line with what, where and the allowed values."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints its one line and exits with code 2."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'rank'?` for the closest of `choices`, or all of them where none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(choices)}"


def shown(name: str) -> str:
    """A file name on one line: line breaks and bytes that are no text are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
