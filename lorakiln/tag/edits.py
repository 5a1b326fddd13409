"""Changing many captions at once, and back: every edit is one journal entry that holds the bytes it replaced.

The journal is on disk before the first caption changes, so an edit cut short by a full disk or a crash can be undone
too. Each file is written whole or not at all. A file changed by someone else since is left alone and named.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic, disk_errors, write_text
from lorakiln.tag.caption import Caption
from lorakiln.tag.rules import matches
from lorakiln.tag.sidecar import Sidecar

FOLDER = ".kiln/tags"
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
    """Put tags at the end, or in front; those already there stay where they are."""

    def change(caption: Caption) -> Caption:
        new = tuple(tag for tag in tags if tag not in caption.tags)
        return _with(caption, (*new, *caption.tags) if first else (*caption.tags, *new))

    return change


def remove(patterns: Sequence[str]) -> Change:
    """Take out every tag that matches; `*` stands for anything."""
    return lambda caption: _with(caption, tuple(tag for tag in caption.tags if not matches(tag, patterns)))


def rename(names: Mapping[str, str]) -> Change:
    """Put other tags in the place of some, each tag once."""

    def change(caption: Caption) -> Caption:
        renamed = [next((new for old, new in names.items() if matches(tag, [old])), tag) for tag in caption.tags]
        return _with(caption, tuple(dict.fromkeys(renamed)))

    return change


def substitute(old: str, new: str) -> Change:
    """Replace text anywhere, in tags and in sentences."""

    def change(caption: Caption) -> Caption:
        tags = tuple(filter(None, dict.fromkeys(tag.replace(old, new).strip() for tag in caption.tags)))
        return Caption(tags, caption.sentence.replace(old, new), caption.joined)

    return change


def _with(caption: Caption, tags: tuple[str, ...]) -> Caption:
    return Caption(tags, caption.sentence, caption.joined)


def commit(folder: Path, what: str, edits: Sequence[Edit]) -> int:
    """Write the edits that change anything as one journal entry; how many files were written.

    Raises UserError when another process edits the folder, a file was changed since it was read, or the disk is full
    (files written until then keep their new text; `undo` brings all back).
    """
    edits = [edit for edit in edits if edit.changes]
    if not edits:
        return 0
    with _locked(folder):
        files = []
        for edit in edits:
            before = edit.sidecar.path.read_bytes() if edit.sidecar.path.exists() else None
            if before is not None and before != edit.sidecar.data(edit.sidecar.text):
                raise UserError(
                    f"{edit.sidecar.path}: was changed by another program in the meantime; nothing was written"
                )
            files.append(_entry(folder, edit, before))
        entries = _entries(folder)
        number = int(entries[-1].stem) + 1 if entries else 1
        text = json.dumps({"what": what, "files": files})
        write_text(folder / FOLDER / f"{number:06}.json", text)
        for edit in edits:
            with atomic(edit.sidecar.path) as stream:
                stream.write(edit.sidecar.data(edit.text))
    return len(edits)


def undo(folder: Path) -> tuple[str, int, list[str]]:
    """Restore the bytes that the last edit replaced: (what it was, files restored, files left alone and why)."""
    folder = Path(folder)
    entries = _entries(folder)
    if not entries:
        raise UserError(f"{folder / FOLDER}: nothing to undo")
    with _locked(folder):
        try:
            entry = json.loads(entries[-1].read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{entries[-1]}: is not a journal entry ({error}); move it away to undo earlier edits"
            ) from None
        restored, left = 0, []
        for file in entry["files"]:
            path = folder / file["name"]
            now = path.read_bytes() if path.exists() else None
            before = None if file["before"] is None else base64.b64decode(file["before"])
            if now == before:  # the edit was cut short before it came to this file
                continue
            if now is None or _digest(now) != file["after"]:
                left.append(f"{path}: was changed since, so it stays")
                continue
            _restore(path, before)
            restored += 1
        entries[-1].unlink()
    return entry["what"], restored, left


def history(folder: Path) -> list[str]:
    """What was done to a folder's captions, the last edit last."""
    return [json.loads(path.read_text(encoding="utf-8"))["what"] for path in _entries(folder)]


def _restore(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink()  # the edit made this file
        return
    with atomic(path) as stream:
        stream.write(before)


def _entry(folder: Path, edit: Edit, before: bytes | None) -> dict[str, str | None]:
    kept = None if before is None else base64.b64encode(before).decode()
    name = edit.sidecar.path.relative_to(folder).as_posix()
    return {"name": name, "before": kept, "after": _digest(edit.sidecar.data(edit.text))}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / FOLDER).glob("*.json") if path.stem.isdigit())


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """One editor at a time; the lock goes with the process, however it ends."""
    place = folder / FOLDER / "lock"
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        stream = place.open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another kiln is editing these captions; wait for it to end") from None
        yield
