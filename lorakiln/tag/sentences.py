"""Where a sentence begins in a caption's line: a tag is a few words, a sentence has many words to each comma."""

import re
from collections.abc import Sequence

_WORDS = 7  # so many words are a sentence even without a full stop
_END = re.compile(r"[.!?]['\")]?$")


def split(line: str, separator: str = ",") -> tuple[tuple[str, ...], str]:
    """(tags, sentence) of one line: the tags stand first; the sentence, "" for none, stays as it was written."""
    raw = line.split(separator)
    pieces = [(place, " ".join(text.split())) for place, text in enumerate(raw) if text.strip()]
    start = _start([text for _, text in pieces])
    tags = tuple(text for _, text in pieces[:start])
    if start == len(pieces):
        return tags, ""
    return tags, separator.join(raw[pieces[start][0] : pieces[-1][0] + 1]).strip()


def names(sentence: str, word: str) -> bool:
    """Whether a word, such as a trigger, stands in a sentence by itself, in capitals or not."""
    return bool(word) and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.IGNORECASE) is not None


def _start(pieces: Sequence[str]) -> int:
    """The piece that opens a sentence, which then reaches to the line's end; as many as there are where none does.

    It is the first that begins with a capital, has three words, and leaves prose from there on; or the line's very
    first where the whole line is prose.
    """
    if not pieces:
        return 0
    ended = _END.search(pieces[-1]) is not None
    words = [len(piece.split()) for piece in pieces]
    left = sum(words)
    for place, piece in enumerate(pieces):
        if piece[0].isupper() and words[place] >= 3 and _prose(left, len(pieces) - place, ended, 2.5):
            return place
        left -= words[place]
    alone = len(pieces) == 1 and ended and pieces[0][0].isupper()
    return 0 if alone or _prose(sum(words), len(pieces), ended) else len(pieces)


def _prose(words: int, pieces: int, ended: bool, least: float = 3) -> bool:
    """`least` is how many words to a piece there must be where a full stop ends them."""
    if ended:
        return words >= 3 and words / pieces >= least
    return words >= _WORDS and words / pieces >= 5
