"""Which files of a folder are its pictures: the one walk that curating, tagging and all else agree on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lorakiln.base.images import EXTENSIONS, UNREAD

REJECTED = "_rejected"  # where `kiln curate --apply` moves pictures: part of no dataset


def pictures(
    folder: Path, refused: Callable[[str, str], None], left_out: Callable[[Path], None] = lambda path: None
) -> Iterator[Path]:
    """Every picture file below a folder, by name. Hidden folders and `_rejected` are left out, linked ones followed,
    each folder once. What cannot be entered, and pictures of a format that is not read, go to `refused(path, reason)`;
    every other file to `left_out`."""
    for path in _files(folder, refused):
        suffix = path.suffix.lower()
        if suffix in EXTENSIONS:
            yield path
        elif suffix in UNREAD:
            refused(str(path), f"{path}: {suffix[1:].upper()} is not read; save it as PNG, JPEG or WebP")
        else:
            left_out(path)


def _files(folder: Path, refused: Callable[[str, str], None]) -> list[Path]:
    entered: set[tuple[int, int]] = set()
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        refused(os.fsdecode(error.filename), f"{os.fsdecode(error.filename)}: cannot be entered ({error.strerror})")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in entered:  # a link back up would be walked for ever
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != REJECTED)
        found += [Path(place) / name for name in names if not name.startswith(".")]
    return sorted(found)
