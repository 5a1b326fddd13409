"""Moving pictures out of a dataset and back. Nothing is ever deleted; a manifest says what went where and why.

The manifest is written before anything moves, so that a move cut short can be undone too.
"""

import contextlib
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorakiln.base import files, images
from lorakiln.base.errors import UserError, shown
from lorakiln.base.files import atomic, disk_errors, write_text
from lorakiln.base.walk import REJECTED
from lorakiln.curate.index import FOLDER
from lorakiln.curate.picture import COMPANIONS

MANIFEST = "manifest.json"
_WORDS = (".txt", ".caption", ".cap", ".tags")  # what a cut copy gets too; other tools' caches are of the whole picture

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of an upright picture to keep (left, top, right, bottom, in pixels), and what to call that."""

    box: Box
    what: str


@dataclass(frozen=True, slots=True)
class Moved:
    """One file's move, names below the dataset's folder; `written` is the copy, cut to `box`, that was made instead."""

    name: str
    to: str
    why: str
    written: str = ""
    box: Box | None = None


def alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Nobody else moves pictures of this folder meanwhile. Raises UserError when somebody does."""
    if not folder.is_dir():
        raise UserError(f"{shown(str(folder))}: no such folder")
    busy = f"{shown(str(folder))}: another kiln is moving its pictures; wait for it to end"
    return files.alone(folder / FOLDER / "curate.lock", busy)


def apply(folder: Path, rejects: Mapping[str, str], cuts: Mapping[str, Cut] | None = None) -> list[Moved]:
    """Move rejected pictures (name -> why) with their captions below `_rejected/`, and those of `cuts` too, with a copy
    cut to size left in their place. Files that are gone are passed over.

    Raises UserError when the folder cannot be written; what was moved until then is in the manifest.
    """
    cuts = cuts or {}
    leaving = [name for name in {**rejects, **cuts} if _there(folder / name)]
    stays = _kept_stems(folder, set(leaving))
    batch: dict[str, Moved] = {}
    taken: set[str] = set()
    for name in leaving:
        why, box, copy = rejects.get(name, ""), None, ""
        if name in cuts:
            why, box = cuts[name].what, cuts[name].box
            copy = _free(folder, f"{Path(name).with_suffix('').as_posix()}.{why}.png", taken)
        batch[name] = Moved(name, _free(folder, f"{REJECTED}/{name}", taken), why, copy, box)
        for path in _companions(folder / name, stays):
            beside = _below(path, folder)
            if beside not in batch:  # two pictures may share a caption, which moves once
                batch[beside] = Moved(beside, _free(folder, f"{REJECTED}/{beside}", taken), why)
    if not batch:
        return []
    _write(folder, [*_read(folder), [asdict(moved) for moved in batch.values()]])
    for moved in batch.values():
        if moved.box:
            _write_cut(folder, moved.name, moved.written, moved.box)
        _move(folder / moved.name, folder / moved.to)
    return list(batch.values())


def undo(folder: Path) -> tuple[list[str], list[str]]:
    """Bring the last batch back: (names brought back, remarks on what could not be, which stays in the manifest).

    Cut copies made then are moved into `_rejected/` in turn, unless they were changed since.
    """
    folder = Path(folder)
    batches = _read(folder)
    if not batches:
        raise UserError(f"{shown(str(folder / REJECTED / MANIFEST))}: nothing to undo")
    back, remarks, left = [], [], []
    for entry in reversed(batches[-1]):
        source, target = folder / entry["to"], folder / entry["name"]
        if not _there(source) and not _there(target):
            remarks.append(f"{source}: is gone")
        elif _there(source) and _there(target) and not _same(source, target):
            remarks.append(f"{target}: exists again, so {source} stays; move one of them away and undo once more")
            left.insert(0, entry)
        else:
            if _there(source):
                _move(source, target)
                back.append(entry["name"])
            if entry["written"] and _there(folder / entry["written"]):
                remarks += _take_back(folder, entry)
    _write(folder, [*batches[:-1], left] if left else batches[:-1])
    return back, remarks


def _take_back(folder: Path, entry: dict[str, Any]) -> list[str]:
    """Move a cut copy and its captions away, unless the picture was changed since."""
    written = folder / entry["written"]
    if not _is_cut_of(written, folder / entry["name"], entry.get("box")):
        return [f"{written}: was changed since, so it stays"]
    for path in [written, *_companions(written, set())]:
        _move(path, folder / _free(folder, f"{REJECTED}/{_below(path, folder)}", set()))
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
    return [beside for ending in COMPANIONS if (beside := path.with_suffix(ending)).is_file()]


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _free(folder: Path, name: str, taken: set[str]) -> str:
    """The name, or one with a number in it, that no file has; it is taken from then on."""
    path = Path(name)
    number, place = 1, name
    while place in taken or _there(folder / place):
        number += 1
        place = f"{path.with_suffix('').as_posix()}.{number}{path.suffix}"
    taken.add(place)
    return place


def _there(path: Path) -> bool:
    return os.path.lexists(path)  # a link that points nowhere, as a relative one does once it is moved, is there too


def _same(one: Path, other: Path) -> bool:
    """Whether a move to another disk was cut short between its two halves."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _move(source: Path, target: Path) -> None:
    if not _there(source):
        return
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _carry(source, target)


def _carry(source: Path, target: Path) -> None:
    """Move to another disk: the copy is whole before the original goes."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    else:
        with source.open("rb") as old, atomic(target) as new:
            shutil.copyfileobj(old, new)
        shutil.copystat(source, target)
    source.unlink()


def _cut(path: Path, box: Box) -> Image.Image:
    """The part of a picture that a box shows, with its transparency."""
    whole = images.decode(path, images.read(path), first_frame=True)
    left, top, right, bottom = box
    part = whole.colours.crop((left, top, right, bottom))
    if whole.alpha is not None:
        part.putalpha(whole.alpha.crop((left, top, right, bottom)))
    return part


def _is_cut_of(written: Path, original: Path, box: Box | None) -> bool:
    try:
        with Image.open(written) as image:
            return bool(box) and np.array_equal(np.asarray(image), np.asarray(_cut(original, box)))
    except (OSError, UserError):
        return False


def _write_cut(folder: Path, name: str, copy: str, box: Box) -> None:
    with atomic(folder / copy) as stream:
        _cut(folder / name, box).save(stream, "PNG")
    for ending in _WORDS:
        caption, other = (folder / name).with_suffix(ending), (folder / copy).with_suffix(ending)
        if caption.is_file() and not other.exists():
            with atomic(other) as stream:
                stream.write(caption.read_bytes())


def _read(folder: Path) -> list[list[dict[str, Any]]]:
    path = folder / REJECTED / MANIFEST
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))["batches"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(str(path))}: is not a manifest ({error}); move it away to start a new one") from None


def _write(folder: Path, batches: list[list[dict[str, Any]]]) -> None:
    # ASCII escapes, so that names which are no text survive
    write_text(folder / REJECTED / MANIFEST, json.dumps({"batches": batches}, indent=1) + "\n")
