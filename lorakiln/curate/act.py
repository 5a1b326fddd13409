"""Moving pictures out of a dataset and back. Nothing is ever deleted; a manifest says what went where and why.

The manifest is written before anything moves, so that a move cut short can be undone too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic, disk_errors, write_text
from lorakiln.base.walk import REJECTED
from lorakiln.curate.picture import Picture

MANIFEST = "manifest.json"
# What belongs to a picture and goes with it: captions, masks' notes, other tools' caches.
_COMPANIONS = (".txt", ".caption", ".cap", ".tags", ".json", ".npz")


@dataclass(frozen=True, slots=True)
class Moved:
    """One file's move, names below the dataset's folder; `written` marks a trimmed copy that was made instead."""

    name: str
    to: str
    why: str
    written: str = ""


def apply(folder: Path, rejects: Mapping[str, str], trims: Sequence[Picture] = ()) -> list[Moved]:
    """Move rejected pictures (name -> why) with their captions below `_rejected/`; write trimmed copies of `trims`.

    Raises UserError when the folder cannot be written; what was moved until then is in the manifest.
    """
    stays = _kept_stems(folder, {*rejects, *(picture.name for picture in trims)})
    taken: set[str] = set()
    batch = []
    for name, why in rejects.items():
        for path in [folder / name, *_companions(folder / name, stays)]:
            batch.append(Moved(_below(path, folder), _free(folder, _below(path, folder), taken), why))
    for picture in trims:
        trimmed = str(Path(picture.name).with_suffix("")) + ".trimmed.png"
        if not (folder / trimmed).exists():
            batch.append(Moved(picture.name, _free(folder, picture.name, taken), "trimmed", trimmed))
    if not batch:
        return []
    batches = _read(folder)
    _write(folder, [*batches, [_entry(folder, moved) for moved in batch]])
    crops = {picture.name: picture for picture in trims}
    for moved in batch:
        if moved.written:
            _write_trimmed(folder, crops[moved.name], moved)
        _move(folder / moved.name, folder / moved.to)
    return batch


def undo(folder: Path) -> tuple[list[str], list[str]]:
    """Bring the last batch back: (names brought back, remarks on what could not be).

    Trimmed copies made then are moved into `_rejected/` in turn, unless they were changed since.
    """
    folder = Path(folder)
    batches = _read(folder)
    if not batches:
        raise UserError(f"{folder / REJECTED / MANIFEST}: nothing to undo")
    back, remarks = [], []
    for entry in reversed(batches[-1]):
        source, target = folder / entry["to"], folder / entry["name"]
        if not source.exists():
            if not target.exists():
                remarks.append(f"{source}: is gone")
            continue
        if target.exists():
            remarks.append(f"{target}: exists again, so {source} stays where it is")
            continue
        if entry["written"] and (folder / entry["written"]).exists():
            remarks += _take_back(folder, entry)
        _move(source, target)
        back.append(entry["name"])
    _write(folder, batches[:-1])
    return back, remarks


def _take_back(folder: Path, entry: dict[str, str]) -> list[str]:
    """Move a trimmed copy and its captions away, unless the picture was changed since."""
    written = folder / entry["written"]
    if _sha256(written) != entry.get("sha256"):
        return [f"{written}: was changed since, so it stays"]
    for path in [written, *_companions(written, set())]:
        _move(path, folder / _free(folder, _below(path, folder), set()))
    return []


def _kept_stems(folder: Path, leaving: set[str]) -> set[Path]:
    """Caption names that a picture which stays has a claim to."""
    parents = {(folder / name).parent for name in leaving}
    stay = set()
    for parent in parents:
        for path in parent.iterdir() if parent.is_dir() else ():
            if path.suffix.lower() in images.EXTENSIONS and _below(path, folder) not in leaving:
                stay.add(path.with_suffix(""))
    return stay


def _companions(path: Path, stays: set[Path]) -> Iterable[Path]:
    if path.with_suffix("") in stays:
        return []
    return [beside for ending in _COMPANIONS if (beside := path.with_suffix(ending)).is_file()]


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _free(folder: Path, name: str, taken: set[str]) -> str:
    """A name below `_rejected/` that no file has."""
    path = Path(name)
    number = 1
    place = f"{REJECTED}/{name}"
    while place in taken or (folder / place).exists():
        number += 1
        place = f"{REJECTED}/{path.with_suffix('').as_posix()}.{number}{path.suffix}"
    taken.add(place)
    return place


def _entry(folder: Path, moved: Moved) -> dict[str, str]:
    return {"name": moved.name, "to": moved.to, "why": moved.why, "written": moved.written}


def _move(source: Path, target: Path) -> None:
    if source.exists():  # two rejected pictures may share a caption, which moves once
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)


def _write_trimmed(folder: Path, picture: Picture, moved: Moved) -> None:
    left, top, right, bottom = picture.measures.border
    upright = images.open_picture(folder / picture.name)
    inside = upright.crop((left, top, upright.width - right, upright.height - bottom))
    with atomic(folder / moved.written) as stream:
        inside.save(stream, "PNG")
    _copy_captions(folder / picture.name, folder / moved.written)
    batches = _read(folder)
    for entry in batches[-1]:
        if entry["name"] == moved.name:
            entry["sha256"] = _sha256(folder / moved.written)
    _write(folder, batches)


def _copy_captions(picture: Path, copy: Path) -> None:
    for ending in (".txt", ".caption"):
        caption, other = picture.with_suffix(ending), copy.with_suffix(ending)
        if caption.is_file() and not other.exists():
            with atomic(other) as stream:
                stream.write(caption.read_bytes())


def _read(folder: Path) -> list[list[dict[str, str]]]:
    path = folder / REJECTED / MANIFEST
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))["batches"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a manifest ({error}); move it away to start a new one") from None


def _write(folder: Path, batches: list[list[dict[str, str]]]) -> None:
    # ASCII escapes, so that names which are no text survive
    write_text(folder / REJECTED / MANIFEST, json.dumps({"batches": batches}, indent=1) + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
