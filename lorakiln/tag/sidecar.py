"""Caption files as they are on disk: read in their own encoding, written back in it, everything else left alone."""

from dataclasses import dataclass, replace
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.tag.captions import EXTENSIONS

LONGEST = 100_000  # characters; what is longer is no caption
# (mark at the start of the file, codec of what follows)
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One caption file. `ending` is the white space at its end, kept as it was; `warning` is "" for none."""

    path: Path
    text: str
    mark: bytes = b""
    encoding: str = "utf-8"
    newline: str = "\n"
    ending: str = ""
    warning: str = ""

    def data(self, text: str) -> bytes:
        """The file's bytes with another text in it. Raises UserError where its encoding has no such character."""
        whole = text.replace("\n", self.newline) + self.ending
        try:
            return self.mark + whole.encode(self.encoding)
        except UnicodeEncodeError as error:
            wrong = text[error.start : error.start + 1]
            raise UserError(
                f"{self.path}: is {self.encoding}, which has no '{wrong}'; save it as UTF-8 first"
            ) from None


def read(path: Path) -> Sidecar:
    """A caption file: UTF-8 or UTF-16 (by its mark), else Shift-JIS where that decodes, with a warning.

    Raises UserError for a file that cannot be read, no text, or text longer than 100,000 characters.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    text, warning = _decoded(path, data[len(mark) :], encoding, bool(mark))
    if warning:
        encoding = "cp932"
    newline = "\r\n" if "\r\n" in text else "\n"
    body = text.replace("\r\n", "\n")
    kept = body.rstrip()
    if len(kept) > LONGEST:
        raise UserError(f"{path}: holds {len(kept):,} characters; a caption has at most {LONGEST:,}")
    return Sidecar(path, kept, mark, encoding, newline, body[len(kept) :].replace("\n", newline), warning)


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


def write(sidecar: Sidecar, text: str) -> Sidecar:
    """Replace the file whole or not at all, in its own encoding."""
    data = sidecar.data(text)
    with atomic(sidecar.path) as stream:
        stream.write(data)
    return replace(sidecar, text=text)
