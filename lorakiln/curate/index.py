"""What was measured before, in an SQLite file beside the pictures, so that a second look reads only what changed.

The file may be deleted at any time: everything in it can be measured again.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from lorakiln.base.records import Size
from lorakiln.curate.compare import Relation
from lorakiln.curate.measure import VERSION
from lorakiln.curate.picture import Measures, Picture

FOLDER = ".kiln"  # hidden, so that no tool takes it for pictures
FILE = "curate.sqlite"
_TABLES = """
create table if not exists pictures (
    name blob primary key, mtime integer, bytes integer, sha256 text, facts text, fields blob, thumbnail blob);
create index if not exists by_content on pictures (sha256);
create table if not exists pairs (first text, second text, relation text, primary key (first, second));
"""


class Index:
    """The measured pictures of one folder, and the pairs compared. Names are stored as bytes: any name is allowed."""

    def __init__(self, folder: Path):
        self.path = folder / FOLDER / FILE
        self.kept = True
        try:
            self.path.parent.mkdir(exist_ok=True)
            self._open(self.path)
        except (OSError, sqlite3.OperationalError):
            self.kept = False  # a folder that cannot be written, or a disk that is full: measured anew each time
            self._open(":memory:")
        except sqlite3.DatabaseError:  # not an index any more: it holds nothing that cannot be measured again
            self.path.unlink()
            self._open(self.path)

    def _open(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, timeout=30, check_same_thread=False)
        try:
            if self._db.execute("pragma user_version").fetchone()[0] != VERSION:
                self._db.executescript("drop table if exists pictures; drop table if exists pairs;")
                self._db.execute(f"pragma user_version = {VERSION}")
            self._db.executescript(_TABLES)
            self._db.commit()
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.commit()
        self._db.close()

    def pictures(self) -> Iterator[tuple[Picture, int]]:
        """Every picture measured before, with its file's time of change in nanoseconds."""
        rows = self._db.execute("select name, mtime, bytes, sha256, facts, fields from pictures")
        for name, mtime, file_bytes, sha256, facts, fields in rows:
            known = json.loads(facts)
            measures = Measures(**(known.pop("measures") | {"border": tuple(known.pop("border"))}))
            size = Size(*known.pop("size"))
            picture = Picture(os.fsdecode(name), sha256, size, file_bytes, measures=measures, fields=fields, **known)
            yield picture, mtime

    def store(self, found: Iterable[tuple[Picture, bytes, int]]) -> None:
        """Remember measured pictures, their thumbnails and their files' times of change."""
        with self._db:
            self._db.executemany(
                "insert or replace into pictures values (?, ?, ?, ?, ?, ?, ?)",
                [(*_key(p), mtime, p.file_bytes, p.sha256, _facts(p), p.fields, thumb) for p, thumb, mtime in found],
            )

    def forget(self, names: Iterable[str]) -> None:
        with self._db:
            self._db.executemany("delete from pictures where name = ?", [(os.fsencode(name),) for name in names])

    def thumbnail(self, sha256: str) -> bytes:
        """The JPEG of a picture by its content."""
        row = self._db.execute("select thumbnail from pictures where sha256 = ? limit 1", (sha256,)).fetchone()
        assert row is not None, f"no thumbnail of {sha256}"
        return row[0]

    def relation(self, first: str, second: str) -> Relation | None:
        """What was found when these two contents were compared before."""
        sql = "select relation from pairs where first = ? and second = ?"
        row = self._db.execute(sql, (first, second)).fetchone()
        if row is None:
            return None
        known = json.loads(row[0])
        return Relation(**(known | {"box": tuple(known["box"])}))

    def relate(self, first: str, second: str, relation: Relation) -> None:
        text = json.dumps(asdict(relation))
        self._db.execute("insert or replace into pairs values (?, ?, ?)", (first, second, text))

    def commit(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk costs the memory, not the result
            self._db.commit()


def _key(picture: Picture) -> tuple[bytes]:
    return (os.fsencode(picture.name),)


def _facts(picture: Picture) -> str:
    facts = asdict(picture)
    for held in ("name", "sha256", "file_bytes", "fields"):
        facts.pop(held)
    return json.dumps(facts | {"border": facts["measures"].pop("border")})
