"""From a caption file to the words of one visit: reading, splitting into tags, and drawing.

A file's lines are alternatives: each visit draws one of its non-empty lines. (kohya reads the first line only, or,
with its wildcards on, draws one; nothing a user wrote is left out here.) Within a line, tags are what lies between
separators; the first `keep_tokens` of them, or those before a `keep_separator` such as `|||`, stay where they are. A
sentence at the end of a line, or alone in it, is no tag: it is never shuffled, dropped or cut at its commas.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.tag import sentences

EXTENSIONS = (".txt", ".caption")

_ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# {{a|b}} stands for the text {a|b}; {a|b} for a or b. Braces without a bar are ordinary text.
_CHOICE = re.compile(r"\{(\{[^{}]*\|[^{}]*\})\}|\{([^{}]*\|[^{}]*)\}")
_FOLDER = re.compile(r"(\d+)_(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """How captions are drawn. Rates are chances, 0 to 1.

    `prefix` and `suffix` stand outside the tags: never shuffled, dropped or counted by `keep_tokens`; only
    `caption_dropout`, which empties the whole caption, takes them along. With a `keep_separator` in the caption (once:
    what is before it stays; twice: what is after the second stays at the end), `keep_tokens` does not count.
    """

    separator: str = ","
    keep_tokens: int = 0
    keep_separator: str = ""
    shuffle: bool = False
    tag_dropout: float = 0.0
    caption_dropout: float = 0.0
    prefix: str = ""
    suffix: str = ""
    wildcards: bool = False

    def __post_init__(self):
        for name in ("tag_dropout", "caption_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} = {getattr(self, name)}: must be from 0 to 1")
        if self.keep_tokens < 0:
            raise UserError(f"keep_tokens = {self.keep_tokens}: must be 0 or more")
        if not self.separator.strip():
            raise UserError("separator is empty; give the mark between tags, e.g. ','")


def draw(caption: str, rules: CaptionRules, rng: random.Random) -> str:
    """The caption of one visit; the same for the same generator state.

    Where nothing shuffles or drops tags, the text stays as it was written, commas and all.
    """
    if rng.random() < rules.caption_dropout:
        return ""
    line = rng.choice(_lines(caption) or [""])
    if rules.wildcards:
        line = _CHOICE.sub(lambda match: match[1] or rng.choice(match[2].split("|")), line)
    first, middle, last = _parts(line, rules)
    if rules.tag_dropout:
        middle = [tag for tag in middle if rng.random() >= rules.tag_dropout]
    if rules.shuffle:
        rng.shuffle(middle)
    pieces = [rules.prefix.strip(), *first, *middle, *last, rules.suffix.strip()]
    return f"{rules.separator.strip()} ".join(piece for piece in pieces if piece)


def drawer(rules: CaptionRules) -> Callable[[str, int], str]:
    """`draw` for a dataset: (caption as written, key) -> caption."""
    return lambda caption, key: draw(caption, rules, random.Random(key))


def varies(caption: str, rules: CaptionRules) -> bool:
    """Whether two visits may get different captions."""
    line = _lines(caption)[:1] or [""]
    moves = (rules.shuffle or rules.tag_dropout) and len(_parts(line[0], rules)[1]) > (0 if rules.tag_dropout else 1)
    chosen = rules.wildcards and _CHOICE.search(caption) is not None
    return bool(rules.caption_dropout or len(_lines(caption)) > 1 or moves or chosen)


def parse(caption: str, separator: str = ",") -> tuple[str, ...]:
    """The tags of one line in order, without the space around them; empty ones are left out."""
    return tuple(tag for tag in (" ".join(tag.split()) for tag in caption.split(separator.strip())) if tag)


def reader(extensions: Sequence[str] = EXTENSIONS) -> Callable[[Path], str | None]:
    """A function from a picture's path to its caption: the first of `extensions` found beside it, or None."""

    def read(picture: Path) -> str | None:
        for extension in extensions:
            path = picture.with_suffix(extension if extension.startswith(".") else f".{extension}")
            if path.is_file():
                return read_caption(path)
        return None

    return read


def read_caption(path: Path) -> str:
    """A caption file's text: UTF-8, or UTF-16 with its mark. Raises UserError for another encoding."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not {encoding.upper()}; save the caption as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path}: holds zero bytes, so it is no UTF-8 text; save the caption as UTF-8")
    return text.strip()


def parse_folder(name: str) -> tuple[int, str] | None:
    """kohya's `10_trigger name`: (10, "trigger name"); None for another name.

    The number is how often each picture is seen an epoch; the words are the caption of pictures without a caption file.
    """
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    if int(match[1]) == 0:
        raise UserError(f"folder '{name}': repeats each picture 0 times; start its name with 1 or more, or remove it")
    return int(match[1]), match[2].strip()


def _lines(caption: str) -> list[str]:
    return [line.strip() for line in caption.splitlines() if line.strip()]


def _parts(line: str, rules: CaptionRules) -> tuple[list[str], list[str], list[str]]:
    """What stays in front, what may move or be dropped, what stays at the end: a sentence for one."""
    separator = rules.separator.strip()
    marked = [part.strip().strip(rules.separator).strip() for part in _split(line, rules.keep_separator)]
    if len(marked) > 1:
        first, middle, *last = marked
        tags, sentence = sentences.split(middle, separator)
        return [first], list(tags), [sentence, *last]
    if not (rules.shuffle or rules.tag_dropout):
        return [line], [], []
    tags, sentence = sentences.split(line, separator)
    return list(tags[: rules.keep_tokens]), list(tags[rules.keep_tokens :]), [sentence]


def _split(line: str, mark: str) -> list[str]:
    return line.split(mark, 2) if mark else [line]
