"""From a folder to what is known of every picture in it: found, read once, measured; what cannot be read, and why."""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lorakiln.base import images, walk
from lorakiln.base.errors import UserError
from lorakiln.curate import measure
from lorakiln.curate.candidates import Report, quiet
from lorakiln.curate.index import Index
from lorakiln.curate.picture import Picture, Refused, shown

_STORED = 64  # pictures between two writes of the index


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
        raise UserError(f"{folder}: no such folder")
    refused: list[Refused] = []
    files = dict(_files(folder, refused))
    if not files:
        raise UserError(f"{folder}: holds no picture ({' '.join(sorted(images.EXTENSIONS))})")
    index = Index(folder)
    known = {picture.name: (picture, mtime) for picture, mtime in index.pictures()}
    index.forget(known.keys() - files.keys())
    fresh = {}
    for name, (_, stat) in files.items():
        picture, mtime = known.get(name, (None, 0))
        if picture is not None and mtime == stat.st_mtime_ns and picture.file_bytes == stat.st_size:
            fresh[name] = picture
    todo = [(name, path, stat.st_mtime_ns) for name, (path, stat) in files.items() if name not in fresh]
    fresh |= _read(todo, index, refused, report, workers)
    if not fresh:
        raise UserError(f"{folder}: none of its {len(files)} pictures can be read; the first: {refused[0].reason}")
    pictures = tuple(fresh[name] for name in files if name in fresh)
    return Scan(folder, pictures, tuple(refused), tuple(_notes(files, index)), len(todo), index)


def _read(
    todo: list[tuple[str, Path, int]], index: Index, refused: list[Refused], report: Report, workers: int
) -> dict[str, Picture]:
    """Read files side by side (Pillow and numpy let each other work); store them as they come."""
    found: dict[str, Picture] = {}
    waiting = []

    def one(entry: tuple[str, Path, int]) -> tuple[Picture, bytes] | str:
        try:
            return measure.read(entry[1], entry[0])
        except UserError as error:
            return str(error)
        except MemoryError:
            return f"{entry[1]}: needs more memory than there is"

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, (entry, result) in enumerate(zip(todo, pool.map(one, todo), strict=True), 1):
            if isinstance(result, str):
                refused.append(Refused(entry[0], result))
            else:
                found[entry[0]] = result[0]
                waiting.append((*result, entry[2]))
            if len(waiting) >= _STORED or done == len(todo):
                index.store(waiting)
                waiting = []
            report(done, len(todo))
    return found


def _files(folder: Path, refused: list[Refused]) -> Iterator[tuple[str, tuple[Path, os.stat_result]]]:
    """(name, (path, stat)) of every picture file by name."""
    for path in walk.pictures(folder, lambda place, why: refused.append(Refused(os.path.relpath(place, folder), why))):
        name = path.relative_to(folder).as_posix()
        try:
            yield name, (path, path.stat())
        except OSError as error:
            refused.append(Refused(name, f"{path}: cannot be read ({error.strerror})"))


def _notes(files: dict[str, tuple[Path, os.stat_result]], index: Index) -> Iterator[str]:
    """What is odd about the folder as a whole."""
    stems = defaultdict(list)
    for name, (path, _) in files.items():
        stems[path.with_suffix("")].append(name)
    for names in stems.values():
        if len(names) > 1:
            yield f"{' and '.join(shown(name) for name in names)} would share one caption file; rename one"
    if not index.kept:
        yield f"{index.path}: cannot be written, so the next look measures everything again"
