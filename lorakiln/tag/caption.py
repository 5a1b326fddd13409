"""A caption file's text taken apart: its lines, and in each line tags, a sentence, or tags before a sentence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lorakiln.tag import sentences


@dataclass(frozen=True, slots=True)
class Line:
    """Tags in order, and the sentence ("" for none) that they stand in front of."""

    tags: tuple[str, ...] = ()
    sentence: str = ""

    @property
    def text(self) -> str:
        return ", ".join(part for part in (*self.tags, self.sentence) if part)


@dataclass(frozen=True, slots=True)
class Caption:
    """The lines of a caption file. They are alternatives: each visit draws one of them, so that in a file of tags on
    one line and a sentence on the next, half the visits see the sentence."""

    lines: tuple[Line, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of all lines in order, each once."""
        return tuple(dict.fromkeys(tag for line in self.lines for tag in line.tags))

    @property
    def sentence(self) -> str:
        """Those of all lines in one text; "" for none."""
        return " ".join(line.sentence for line in self.lines if line.sentence)

    def text(self) -> str:
        """As it stands in a file."""
        return "\n".join(line.text for line in self.lines)

    def each(self, change: Callable[[Line], Line]) -> "Caption":
        """With every line changed; lines left without a word go."""
        return Caption(tuple(line for line in map(change, self.lines) if line.text))

    def widened(self, change: Callable[[tuple[str, ...]], Iterable[str]]) -> "Caption":
        """With tags changed where tags belong: in the lines of tags alone; where there is none, in those that have
        tags before a sentence; else in a new first line."""
        home = [line for line in self.lines if not line.sentence] or [line for line in self.lines if line.tags]
        if not home:
            return Caption((Line(tuple(change(()))), *self.lines)).each(lambda line: line)
        return self.each(lambda line: replace(line, tags=tuple(change(line.tags))) if line in home else line)

    def retagged(self, tags: Iterable[str]) -> "Caption":
        """With these tags instead of all others: one line of them where there were several. Sentences stay."""
        if any(line.tags and not line.sentence for line in self.lines):
            first = Line(tuple(tags))
            return Caption((first, *(line for line in self.lines if line.sentence))).each(lambda line: line)
        return self.widened(lambda old: tags)

    def told(self, sentence: str) -> "Caption":
        """With a further line that holds this sentence."""
        return Caption((*self.lines, Line((), sentence))) if sentence else self


def read(text: str) -> Caption:
    """The lines of a caption file's text; empty ones are left out."""
    lines = (Line(*sentences.split(line)) for line in text.splitlines())
    return Caption(tuple(line for line in lines if line.text))


def of(tags: Iterable[str], sentence: str = "", joined: bool = False) -> Caption:
    """A caption of one line of tags and one sentence, both in one line where `joined`."""
    if joined:
        return Caption((Line(tuple(tags), sentence),))
    return Caption(tuple(line for line in (Line(tuple(tags)), Line((), sentence)) if line.text))
