"""What was measured before, in an SQLite file beside the pictures, so that a second look reads only what changed.

The file may be deleted at any time: everything in it can be measured again.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import PIL

from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.curate.align import Box
from lorakiln.curate.compare import Relation
from lorakiln.curate.measure import VERSION
from lorakiln.curate.picture import Measures, Picture

FOLDER = ".kiln"  # hidden, so that no tool takes it for pictures
FILE = "curate.sqlite"
_TABLES = {
    "pictures": "name blob primary key, mtime integer, bytes integer, sha256 text, facts text, fields blob, "
    "thumbnail blob",
    "pairs": "first text, second text, guess text, relation text, primary key (first, second, guess)",
    "refused": "name blob primary key, mtime integer, bytes integer, reason text, reader text",
}
_WAITING = 256  # comparisons between two writes: what an interruption loses at most
_PATIENCE = 30  # seconds to wait for another process that writes

Guess = tuple[Box, bool]


class Index:
    """The measured pictures of one folder, and the pairs compared. Names are stored as bytes: any name is allowed.

    Where the file cannot be written (`lost` then says why), all goes on in a temporary one.
    """

    def __init__(self, folder: Path):
        self.path = folder / FOLDER / FILE
        self.lost = ""
        self._compared: dict[tuple[str, str, str], Relation] = {}
        try:
            self.path.parent.mkdir(exist_ok=True)
            self._open(self.path)
        except (OSError, sqlite3.OperationalError) as error:  # a folder that cannot be written, or a disk that is full
            self.lost = str(error)
            self._open("")
        except sqlite3.DatabaseError:  # not an index any more: it holds nothing that cannot be measured again
            self.path.unlink()
            self._open(self.path)

    def _open(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
        try:
            if self._version() != VERSION:
                self._db.execute("begin immediate")  # another process may be doing the same
                if self._version() != VERSION:
                    for table in _TABLES:
                        self._db.execute(f"drop table if exists {table}")
                        self._db.execute(f"create table {table} ({_TABLES[table]})")
                    self._db.execute("create index by_content on pictures (sha256)")
                    self._db.execute(f"pragma user_version = {VERSION}")
                self._db.commit()
        except sqlite3.Error:
            self._db.close()
            raise

    def _version(self) -> int:
        return self._db.execute("pragma user_version").fetchone()[0]

    def _write(self, sql: str, rows: Sequence[tuple]) -> None:
        """Write at once, holding the lock no longer than that; on a full disk go on in a temporary file."""
        if not rows:
            return
        try:
            with self._db:
                self._db.executemany(sql, rows)
        except sqlite3.OperationalError as error:
            if self.lost:
                raise UserError(f"the temporary folder, which stands in for {self.path}: {error}") from error
            self.lost = str(error)
            kept, self._db = self._db, sqlite3.connect("", check_same_thread=False)
            kept.backup(self._db)
            kept.close()
            self._write(sql, rows)

    def close(self) -> None:
        self.flush()
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
        self._write(
            "insert or replace into pictures values (?, ?, ?, ?, ?, ?, ?)",
            [(os.fsencode(p.name), mtime, p.file_bytes, p.sha256, _facts(p), p.fields, jpg) for p, jpg, mtime in found],
        )

    def forget(self, names: Iterable[str]) -> None:
        gone = [(os.fsencode(name),) for name in names]
        for table in ("pictures", "refused") if gone else ():
            self._write(f"delete from {table} where name = ?", gone)

    def refused(self) -> Iterator[tuple[str, str, int, int]]:
        """(name, reason, time of change, bytes) of every file whose content could not be read before, by a Pillow of
        the same version."""
        sql = "select name, reason, mtime, bytes from refused where reader = ?"
        for name, *facts in self._db.execute(sql, (PIL.__version__,)):
            yield os.fsdecode(name), *facts

    def refuse(self, found: Iterable[tuple[str, str, int, int]]) -> None:
        """Remember (name, reason, time of change, bytes) of files whose content cannot be read."""
        rows = [(os.fsencode(name), mtime, size, reason, PIL.__version__) for name, reason, mtime, size in found]
        self._write("insert or replace into refused values (?, ?, ?, ?, ?)", rows)

    def thumbnail(self, sha256: str) -> bytes:
        """The JPEG of a picture by its content."""
        row = self._db.execute("select thumbnail from pictures where sha256 = ? limit 1", (sha256,)).fetchone()
        assert row is not None, f"no thumbnail of {sha256}"
        return row[0]

    def relation(self, first: str, second: str, guess: Guess) -> Relation | None:
        """What was found when these two contents were compared before, from the same first guess."""
        key = first, second, json.dumps(guess)
        if key in self._compared:
            return self._compared[key]
        sql = "select relation from pairs where first = ? and second = ? and guess = ?"
        row = self._db.execute(sql, key).fetchone()
        if row is None:
            return None
        known = json.loads(row[0])
        return Relation(**(known | {"box": tuple(known["box"])}))

    def relate(self, first: str, second: str, guess: Guess, relation: Relation) -> None:
        """Remember what was found; it is written with others, now and then."""
        self._compared[first, second, json.dumps(guess)] = relation
        if len(self._compared) >= _WAITING:
            self.flush()

    def flush(self) -> None:
        """Write the comparisons that wait."""
        rows = [(*key, json.dumps(asdict(relation))) for key, relation in self._compared.items()]
        self._write("insert or replace into pairs values (?, ?, ?, ?)", rows)
        self._compared.clear()


def _facts(picture: Picture) -> str:
    facts = asdict(picture)
    for held in ("name", "sha256", "file_bytes", "fields"):
        facts.pop(held)
    return json.dumps(facts | {"border": facts["measures"].pop("border")})
