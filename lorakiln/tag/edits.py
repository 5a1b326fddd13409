"""Changing many captions at once, and back: every edit is one journal entry that holds the bytes it replaced.

An entry is lines of JSON: what the edit was, then the files, each written down before it changes; so an edit cut short
by a full disk, a crash or Ctrl-C can be undone too. Each file is written whole or not at all. A file changed by someone
else since is left alone and named.
"""

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from lorakiln.base.errors import UserError
from lorakiln.base.files import alone, atomic, disk_errors, write_text
from lorakiln.tag.caption import Caption, read
from lorakiln.tag.captions import parse
from lorakiln.tag.rules import matches
from lorakiln.tag.sidecar import Sidecar

FOLDER = ".kiln/tags"
LEFT = "left"  # what an undo could not put back, as files, a folder for each entry
Change = Callable[[Caption], Caption]


@dataclass(frozen=True, slots=True)
class Edit:
    """One caption file's new text."""

    sidecar: Sidecar
    text: str

    @property
    def changes(self) -> bool:
        return self.text != self.sidecar.text


def add(tags: Sequence[str], first: bool = False) -> Change:
    """Put tags at the end, or in front; those already there stay where they are. "a, b" is two tags."""
    tags = _apart(tags)

    def widen(own: tuple[str, ...]) -> tuple[str, ...]:
        new = tuple(tag for tag in tags if tag not in own)
        return (*new, *own) if first else (*own, *new)

    return lambda caption: caption.widened(widen)


def remove(patterns: Sequence[str]) -> Change:
    """Take out every tag that matches; `*` stands for anything."""
    patterns = _apart(patterns)

    def change(caption: Caption) -> Caption:
        return caption.each(lambda line: replace(line, tags=tuple(t for t in line.tags if not matches(t, patterns))))

    return change


def rename(names: Mapping[str, str]) -> Change:
    """Put other tags in the place of some, each tag once in a line. Raises UserError where the new name is empty."""
    for old, new in names.items():
        if not parse(new):
            raise UserError(f"rename {old}=: there is no new name; to take the tag out, remove it")

    def renamed(tags: Iterable[str]) -> Iterable[str]:
        for tag in tags:
            new = next((new for old, new in names.items() if matches(tag, [old])), None)
            yield from (tag,) if new is None else parse(new)

    return lambda caption: caption.each(lambda line: replace(line, tags=tuple(dict.fromkeys(renamed(line.tags)))))


def substitute(old: str, new: str) -> Change:
    """Replace text anywhere, in tags and in sentences; each tag stands once in a line afterwards."""

    def change(caption: Caption) -> Caption:
        if old not in caption.text():
            return caption
        changed = read(caption.text().replace(old, new))
        return changed.each(lambda line: replace(line, tags=tuple(dict.fromkeys(line.tags))))

    return change


def _apart(tags: Sequence[str]) -> tuple[str, ...]:
    found = tuple(tag for text in tags for tag in parse(text))
    if tags and not found:
        raise UserError(f"'{tags[0]}' is no tag; give a word")
    return found


@dataclass(slots=True)
class Session:
    """One edit in the making: written file by file as it comes, undone as a whole.

    `left` says which files were left alone, and why.
    """

    folder: Path
    what: str
    left: list[str] = field(default_factory=list)
    _now: dict[Path, Sidecar] = field(default_factory=dict)
    _entry: Path | None = None

    @property
    def written(self) -> int:
        """How many files hold something else than before."""
        return len(self._now)

    def write(self, edits: Iterable[Edit]) -> None:
        """Write those that change anything. A file changed by another program since it was read, one that cannot be
        read, and one whose encoding has no such character are left alone. Raises UserError for a full disk; what was
        written until then stays."""
        ready, lines = [], []
        for edit in edits:
            file = self._now.get(edit.sidecar.path, edit.sidecar)  # an edit may come to a file twice
            if edit.text == file.text:
                continue
            try:
                new, there = edit.sidecar.holding(edit.text), _bytes(file.path)
            except UserError as error:
                self.left.append(str(error))
                continue
            if there != file.raw:
                self.left.append(f"{file.path}: was changed by another program since it was read, so it stays")
                continue
            ready.append(new)
            lines.append(_line(self.folder, file, new))
        if ready:
            self._note(lines)
        for file in ready:
            assert file.raw is not None
            with atomic(file.path) as stream:
                stream.write(file.raw)
            self._now[file.path] = file

    def _note(self, lines: list[dict[str, str | None]]) -> None:
        """Into the journal and onto the disk, before any of these files changes."""
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        if self._entry is None:
            entry = self.folder / FOLDER / f"{_next(self.folder):06}.jsonl"
            write_text(entry, json.dumps({"what": self.what}) + "\n" + text)
            self._entry = entry
            return
        with disk_errors(self._entry), self._entry.open("ab") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def editing(folder: Path, what: str) -> Generator[Session]:
    """An edit of a folder's captions, alone: a second one is refused until this one has ended."""
    with _alone(folder):
        yield Session(folder, what)


def commit(folder: Path, what: str, edits: Sequence[Edit]) -> tuple[int, list[str]]:
    """Write the edits as one journal entry: (how many files were written, those left alone and why)."""
    if not any(edit.changes for edit in edits):
        return 0, []
    with editing(folder, what) as session:
        session.write(edits)
    return session.written, session.left


def undo(folder: Path) -> tuple[str, int, list[str]]:
    """Restore the bytes that the last edit replaced: (what it was, files restored, files left alone and why).

    A file that someone changed since stays; what it held before the edit is kept as a file of its own.
    """
    folder = Path(folder)
    with _alone(folder) if (folder / FOLDER).is_dir() else contextlib.nullcontext():
        entries = _entries(folder)
        if not entries:
            raise UserError(f"{folder / FOLDER}: nothing to undo")
        what, files = _read(entries[-1])
        restored, left = 0, []
        for name, (before, after) in files.items():
            path = folder / name
            now = _bytes(path)
            if now == before:  # the edit was cut short before it came to this file
                continue
            if now is not None and _digest(now) in after:
                _restore(path, before)
                restored += 1
            else:
                left.append(f"{path}: was changed since, so it stays{_kept(folder, entries[-1].stem, name, before)}")
        entries[-1].unlink()
    return what, restored, left


def history(folder: Path) -> list[str]:
    """What was done to a folder's captions, the last edit last."""
    return [_read(path)[0] for path in _entries(Path(folder))]


def _restore(path: Path, before: bytes | None) -> None:
    if before is None:
        with disk_errors(path):
            path.unlink()  # the edit made this file
        return
    with atomic(path) as stream:
        stream.write(before)


def _kept(folder: Path, number: str, name: str, before: bytes | None) -> str:
    """Writes down what an undo could not put back; says where."""
    if before is None:
        return ""
    place = folder / FOLDER / LEFT / number / name
    with atomic(place) as stream:
        stream.write(before)
    return f"; what it held before is in {place}"


def _bytes(path: Path) -> bytes | None:
    """None for a file that is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _line(folder: Path, old: Sidecar, new: Sidecar) -> dict[str, str | None]:
    before = None if old.raw is None else base64.b64encode(old.raw).decode()
    return {"name": old.path.relative_to(folder).as_posix(), "before": before, "after": _digest(new.raw or b"")}


def _read(entry: Path) -> tuple[str, dict[str, tuple[bytes | None, set[str]]]]:
    """(what the edit was, by file: its bytes before the edit and the digests that the edit gave it).

    A last line without an end is of a file that was not written any more.
    """
    files: dict[str, tuple[bytes | None, set[str]]] = {}
    try:
        head, *lines = entry.read_bytes().split(b"\n")[:-1]
        what = str(json.loads(head)["what"])
        for line in map(json.loads, lines):
            name, before = str(line["name"]), line["before"]
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"'{name}' is outside the folder")
            kept = None if before is None else base64.b64decode(before)
            files.setdefault(name, (kept, set()))[1].add(str(line["after"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{entry}: is not a journal entry ({error}); move it away to undo earlier edits") from None
    return what, files


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / FOLDER).glob("*.jsonl") if path.stem.isdigit())


def _next(folder: Path) -> int:
    """A number that no entry has, nor what is left of one."""
    taken = [*_entries(folder), *(folder / FOLDER / LEFT).glob("*")]
    return max((int(path.stem) for path in taken if path.stem.isdigit()), default=0) + 1


def _alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    return alone(folder / FOLDER / "lock", f"{folder}: another kiln is editing these captions; wait for it to end")
