"""What `kiln curate` remembers of a folder's pictures: sizes, contents and copies, without opening one of them."""

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lorakiln.base.records import Size
from lorakiln.curate.index import FILE, FOLDER
from lorakiln.curate.measure import VERSION

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """One picture as the index has it; it holds while the file has this time of change (ns) and these bytes."""

    size: Size
    sha256: str
    mtime: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is remembered of some folders. `copies` are pairs of contents (SHA-256) found to be one picture."""

    pictures: dict[Path, Measured] = field(default_factory=dict)
    copies: frozenset[Pair] = frozenset()
    found: bool = False  # whether there was an index at all

    def of(self, path: Path, status: os.stat_result) -> Measured | None:
        """What is known of a file as it is now; None where it was never looked at, or changed since."""
        known = self.pictures.get(path)
        fits = known and (known.mtime, known.file_bytes) == (status.st_mtime_ns, status.st_size)
        return known if fits else None


def read(folders: Iterable[Path]) -> Scanned:
    """The indexes of these folders as one; a folder without one, or with one that cannot be read, adds nothing."""
    pictures: dict[Path, Measured] = {}
    copies: set[Pair] = set()
    there = False
    for folder in folders:
        file = folder / FOLDER / FILE
        if not file.is_file():
            continue
        try:
            with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=0.5)) as known:
                if known.execute("pragma user_version").fetchone()[0] != VERSION:
                    continue
                rows = known.execute("select name, mtime, bytes, sha256, facts from pictures").fetchall()
                pairs = known.execute("select first, second, relation from pairs").fetchall()
        except sqlite3.Error:
            continue
        there = True
        for name, mtime, file_bytes, sha256, facts in rows:
            told = json.loads(facts)
            if not told["note"]:  # a picture that moves is for training to refuse
                pictures[folder / os.fsdecode(name)] = Measured(Size(*told["size"]), sha256, mtime, file_bytes)
        copies |= {(one, two) for one, two, relation in pairs if json.loads(relation).get("kind") == "copy"}
    return Scanned(pictures, frozenset(copies), there)
