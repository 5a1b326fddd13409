"""From a folder to what is known of every picture in it: found, read once, measured; what cannot be read, and why."""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lorakiln.base import images, walk
from lorakiln.base.errors import UserError, shown
from lorakiln.curate import measure
from lorakiln.curate.candidates import Report, quiet
from lorakiln.curate.index import Index
from lorakiln.curate.picture import COMPANIONS, Picture, Refused

_STORED = 64  # files between two writes of the index

_Entry = tuple[str, Path, os.stat_result]
_File = tuple[Path, os.stat_result]


@dataclass(frozen=True, slots=True)
class Scan:
    """What a folder holds: pictures by name, files refused, remarks on the folder, and how many files were read."""

    folder: Path
    pictures: tuple[Picture, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    read: int
    index: Index


def scan(folder: Path, report: Report = quiet, workers: int = 0) -> Scan:
    """Measure every picture below a folder; what the index knows unchanged is not read again.

    `workers` 0: one for each core. Raises UserError for a missing folder or one without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown(str(folder))}: no such folder")
    refused: list[Refused] = []
    others: list[str] = []
    files = dict(_files(folder, refused, others))
    if not files:
        hint = f"; {shown(refused[0].reason)}" if refused else ""
        raise UserError(f"{shown(str(folder))}: holds no picture ({' '.join(sorted(images.EXTENSIONS))}){hint}")
    index = Index(folder)
    fresh, unread = _known(index, files)
    refused += unread
    answered = fresh.keys() | {entry.name for entry in unread}
    todo = [(name, path, stat) for name, (path, stat) in files.items() if name not in answered]
    fresh |= _read(todo, index, refused, report, workers)
    if not fresh:
        why = shown(refused[0].reason)
        raise UserError(f"{shown(str(folder))}: none of its {len(files)} pictures can be read; the first: {why}")
    pictures = tuple(fresh[name] for name in files if name in fresh)
    notes = tuple(_notes(files, others, index))
    return Scan(folder, pictures, tuple(sorted(refused, key=lambda entry: entry.name)), notes, len(todo), index)


def _known(index: Index, files: dict[str, _File]) -> tuple[dict[str, Picture], list[Refused]]:
    """What the index knows of files that are as they were; it forgets those that are gone."""

    def unchanged(name: str, mtime: int, size: int) -> bool:
        stat = files[name][1] if name in files else None
        return stat is not None and (stat.st_mtime_ns, stat.st_size) == (mtime, size)

    known = {picture.name: (picture, mtime) for picture, mtime in index.pictures()}
    unread = list(index.refused())
    index.forget((known.keys() | {name for name, *_ in unread}) - files.keys())
    fresh = {name: p for name, (p, mtime) in known.items() if unchanged(name, mtime, p.file_bytes)}
    bad = {name: why for name, why, mtime, size in unread if name not in fresh and unchanged(name, mtime, size)}
    return fresh, [Refused(name, f"{files[name][0]}: {why}") for name, why in bad.items()]


def _read(todo: list[_Entry], index: Index, refused: list[Refused], report: Report, workers: int) -> dict[str, Picture]:
    """Read files side by side (Pillow and numpy let each other work); store them as they come."""
    found: dict[str, Picture] = {}
    stored: list[tuple[Picture, bytes, int]] = []
    bad: list[tuple[str, str, int, int]] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, (entry, result) in enumerate(zip(todo, pool.map(_one, todo), strict=True), 1):
            name, path, stat = entry
            if isinstance(result, _Unread):
                refused.append(Refused(name, result.why))
                if result.lasting:
                    bad.append((name, result.why.removeprefix(f"{path}: "), stat.st_mtime_ns, stat.st_size))
            else:
                found[name] = result[0]
                stored.append((*result, stat.st_mtime_ns))
            if len(stored) + len(bad) >= _STORED or done == len(todo):
                index.store(stored)
                index.refuse(bad)
                stored, bad = [], []
            report(done, len(todo))
    return found


class _Unread(NamedTuple):
    """Why a file could not be measured; `lasting` where that lies in its content."""

    why: str
    lasting: bool


def _one(entry: _Entry) -> tuple[Picture, bytes] | _Unread:
    name, path, _ = entry
    data = None
    try:
        data = images.read(path)
        return measure.take(path, name, data)
    except UserError as error:
        return _Unread(str(error), data is not None and not isinstance(error.__cause__, MemoryError))
    except MemoryError:
        return _Unread(f"{path}: needs more memory than there is", False)


def _files(
    folder: Path, refused: list[Refused], others: list[str]
) -> Iterator[tuple[str, tuple[Path, os.stat_result]]]:
    """(name, (path, stat)) of every picture file by name; to `others` go the names of what is neither a picture nor
    kept beside one."""

    def refuse(place: str, why: str) -> None:
        refused.append(
            Refused(os.path.relpath(place, folder), why, tried=Path(place).suffix.lower() not in images.UNREAD)
        )

    def left_out(path: Path) -> None:
        if path.suffix.lower() not in COMPANIONS:
            others.append(path.relative_to(folder).as_posix())

    for path in walk.pictures(folder, refuse, left_out):
        name = path.relative_to(folder).as_posix()
        try:
            yield name, (path, path.stat())
        except OSError as error:
            refused.append(Refused(name, f"{path}: cannot be read ({error.strerror})"))


def _notes(files: dict[str, _File], others: list[str], index: Index) -> Iterator[str]:
    """What is odd about the folder as a whole."""
    stems = defaultdict(list)
    for name, (path, _) in files.items():
        stems[path.with_suffix("")].append(name)
    for names in stems.values():
        if len(names) > 1:
            yield f"{' and '.join(shown(name) for name in names)} would share one caption file; rename one"
    if others:
        some = ", ".join(shown(name) for name in others[:5]) + (", ..." if len(others) > 5 else "")
        yield f"left out: {len(others)} other files, whose names are no picture's ({some})"
    if index.lost:
        yield f"{shown(str(index.path))}: cannot be written ({index.lost}), so the next look measures everything again"
