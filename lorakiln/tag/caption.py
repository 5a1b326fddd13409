"""A caption's two kinds of words: tags, and a sentence. A file may hold either or both."""

import re
from dataclasses import dataclass

from lorakiln.tag.captions import parse

# A tag is a few words; a sentence has many, or begins like one and ends in a full stop.
_WORDS = 7


@dataclass(frozen=True, slots=True)
class Caption:
    """Tags in order, and a sentence ("" for none). `joined` says that both stand in one line, tags first.

    In a file of two lines each visit draws one of them, so half the visits see the sentence.
    """

    tags: tuple[str, ...] = ()
    sentence: str = ""
    joined: bool = False

    def text(self) -> str:
        """As it stands in a file."""
        parts = [part for part in (", ".join(self.tags), self.sentence) if part]
        return (", " if self.joined else "\n").join(parts)


def read(text: str) -> Caption:
    """Tags and sentence of a caption file's text; further lines of tags are taken as alternatives and joined in."""
    tags: list[str] = []
    sentences: list[str] = []
    joined = False
    for line in filter(None, (line.strip() for line in text.splitlines())):
        own = list(parse(line))
        at = next((n for n in range(len(own)) if _opens(own, n)), len(own))
        if at == len(own) and is_sentence(line):
            at = 0
        if at < len(own):
            sentences.append(", ".join(own[at:]) if at else line)
            joined = joined or at > 0
            own = own[:at]
        tags += [tag for tag in own if tag not in tags]
    return Caption(tuple(tags), " ".join(sentences), joined)


def _opens(pieces: list[str], at: int) -> bool:
    """Whether a sentence begins with this piece: a capital, some words, and a full stop at the end of the line."""
    return pieces[at][0].isupper() and len(pieces[at].split()) >= 3 and is_sentence(", ".join(pieces[at:]))


def is_sentence(text: str) -> bool:
    """Whether a line is prose: it ends as a sentence does and has several words to each comma, or many words at all."""
    words, pieces = len(text.split()), len(parse(text))
    if words < 3 or not pieces:
        return False
    if re.search(r"[.!?]['\")]?$", text):
        return words / pieces >= 3
    return words >= _WORDS and words / pieces >= 5
