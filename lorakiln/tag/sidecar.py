"""Caption files as they are on disk: read in their own encoding, written back in it, everything else left alone."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.tag.captions import EXTENSIONS

LONGEST = 100_000  # characters; what is longer is no caption
# (mark at the start of the file, codec of what follows)
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One caption file: its text with "\\n" between lines, and all that is needed to write another text into it.

    `raw` is its bytes, None where there is no file yet; `newline` the first line break in it (several kinds become
    this one once the text changes); `ending` the white space at its end, kept as it was; `warning` is "" for none.
    """

    path: Path
    text: str
    mark: bytes = b""
    encoding: str = "utf-8"
    newline: str = "\n"
    ending: str = ""
    warning: str = ""
    raw: bytes | None = None

    def data(self, text: str) -> bytes:
        """The file's bytes with another text in it. Raises UserError where its encoding has no such character."""
        if self.raw is not None and text == self.text:
            return self.raw
        whole = text.replace("\n", self.newline) + self.ending
        try:
            return self.mark + whole.encode(self.encoding)
        except UnicodeEncodeError as error:
            wrong = whole[error.start : error.start + 1]
            raise UserError(
                f"{self.path}: is {self.encoding}, which has no '{wrong}'; save it as UTF-8 first"
            ) from None

    def holding(self, text: str) -> "Sidecar":
        """The file as it will be once that text is written."""
        return replace(self, text=text, raw=self.data(text))


def read(path: Path) -> Sidecar:
    """A caption file: UTF-8 or UTF-16 (by its mark), else Shift-JIS where that decodes, with a warning.

    Raises UserError for a file that cannot be read, no text, or text longer than 100,000 characters.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    text, warning = _decoded(path, raw[len(mark) :], encoding, bool(mark))
    if warning:
        encoding = "cp932"
    kept = text.rstrip()
    if len(kept) > LONGEST:
        raise UserError(f"{path}: holds {len(kept):,} characters; a caption has at most {LONGEST:,}")
    first = _BREAK.search(text)
    newline = first[0] if first else "\n"
    return Sidecar(path, _BREAK.sub("\n", kept), mark, encoding, newline, text[len(kept) :], warning, raw)


def _decoded(path: Path, data: bytes, encoding: str, marked: bool) -> tuple[str, str]:
    try:
        text = data.decode(encoding)
        if "\0" not in text:
            return text, ""
    except UnicodeDecodeError:
        pass
    if not marked:
        try:
            text = data.decode("cp932")
            if "\0" not in text:
                return text, f"{path}: is no UTF-8; read as Shift-JIS"
        except UnicodeDecodeError:
            pass
    raise UserError(f"{path}: is neither UTF-8, UTF-16 nor Shift-JIS text; save the caption as UTF-8")


def of(picture: Path, extension: str = ".txt") -> Sidecar:
    """A picture's caption file: the first that exists, else an empty one to be written, with `extension`."""
    for ending in EXTENSIONS:
        path = picture.with_suffix(ending)
        if path.is_file():
            return read(path)
    return Sidecar(picture.with_suffix(extension), "", ending="\n")
