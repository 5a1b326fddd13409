"""The ledger: one SQLite file that remembers every run, what it was made from, what it cost and how it came out."""

import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from lorakiln.base.errors import UserError, nearest

VARIABLE = "KILN_LEDGER"  # a file; "off": remember nothing
STATUSES = ("running", "finished", "stopped", "failed", "killed")
# each brings a ledger of the version before it (its place in this list) to the next
MIGRATIONS = (
    """CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, verdict TEXT NOT NULL,
    base TEXT NOT NULL, purpose TEXT NOT NULL, dataset TEXT NOT NULL, pictures INTEGER NOT NULL,
    steps INTEGER NOT NULL, timed_steps INTEGER NOT NULL, loss REAL, seconds TEXT NOT NULL, peak_memory REAL,
    price REAL, device TEXT NOT NULL, started TEXT NOT NULL, finished TEXT NOT NULL, notes TEXT NOT NULL,
    tags TEXT NOT NULL, origin TEXT NOT NULL, host TEXT NOT NULL, process TEXT NOT NULL, folder TEXT NOT NULL,
    recipe TEXT NOT NULL)""",
)
AS_JSON = ("seconds", "tags", "recipe")


@dataclass(frozen=True, slots=True)
class Entry:
    """One run. Times are ISO 8601 in UTC; None where nothing is known.

    `dataset` is the hash of the pictures and captions. `seconds` is by stage, over all the times it was resumed, and
    `timed_steps` are the steps that `seconds["train"]` holds. `peak_memory` is in GiB: the GPU's, or the process's on
    a CPU. `price` is of an hour. `process` tells a run that goes on from one that was killed. `origin` is the file that
    it was imported from, "" for an own run.
    """

    id: str
    name: str
    status: str
    error: str = ""
    verdict: str = ""
    base: str = ""
    purpose: str = ""
    dataset: str = ""
    pictures: int = 0
    steps: int = 0
    timed_steps: int = 0
    loss: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: float | None = None
    price: float | None = None
    device: str = ""
    started: str = ""
    finished: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    origin: str = ""
    host: str = ""
    process: str = ""
    folder: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    @property
    def cost(self) -> float | None:
        """Money, where the price of an hour is known."""
        return None if self.price is None else self.time / 3600 * self.price

    @property
    def step_seconds(self) -> float | None:
        """Seconds of one optimizer step, without samples and saving."""
        train = self.seconds.get("train", 0.0)
        return train / self.timed_steps if self.timed_steps and train else None


COLUMNS = tuple(one.name for one in fields(Entry))
_NAMES = ", ".join(COLUMNS)


def place() -> Path | None:
    """Where the ledger lies: what KILN_LEDGER says, else the user's data folder; None where it is switched off."""
    told = os.environ.get(VARIABLE, "")
    if told == "off":
        return None
    if told:
        return Path(told).expanduser()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "kiln" / "ledger.sqlite"


class Ledger:
    """The file at `path` (None: `place()`). Each call opens it, does one transaction and closes it.

    Every method raises UserError where the file cannot be used, or another program holds it for `patience` seconds.
    """

    def __init__(self, path: Path | None = None, patience: float = 10.0):
        self.path, self.patience = path or place(), patience

    def entries(self) -> list[Entry]:
        """Every run, newest first; none where there is no ledger yet."""
        if self.path is None or not self.path.exists():
            return []
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute(f"SELECT {_NAMES} FROM runs ORDER BY started DESC, rowid DESC")
            return [alive(_entry(row)) for row in rows]

    def find(self, word: str) -> Entry:
        """The run of this folder, this id, or its beginning, or the newest of this name."""
        known = self.entries()
        here = str(Path(word).resolve())
        for same in (lambda one: one.folder == here, lambda one: one.name == word, lambda one: one.id.startswith(word)):
            found = [one for one in known if same(one)]
            if found and word:
                return found[0]
        names = {one.name for one in known}
        raise UserError(f"no run '{word}' in the ledger{nearest(word, names) if names else ' (it is empty)'}")

    def save(self, entries: Iterable[Entry]) -> None:
        """Write runs, over older rows of the same ids; what the user wrote there stays."""
        with self._transaction("IMMEDIATE") as connection:
            for one in entries:
                old = _get(connection, one.id)
                _put(connection, _kept(one, old) if old else one)
                if one.folder:  # an overwritten run is remembered, but its folder is another's now
                    connection.execute("UPDATE runs SET folder = '' WHERE folder = ? AND id <> ?", (one.folder, one.id))

    def annotate(self, id: str, *, note: str = "", tags: Iterable[str] = (), price: float | None = None) -> Entry:
        """Add a line to a run's notes, add tags, or say what its hour cost; the run as it is then."""
        with self._transaction("IMMEDIATE") as connection:
            old = _get(connection, id)
            if old is None:
                raise UserError(f"no run with id '{id}' in the ledger")
            new = _kept(replace(old, notes=printable(note), tags=tuple(tags), price=price), old)
            _put(connection, new)
        return new

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Generator[sqlite3.Connection]:
        if self.path is None:
            raise UserError(f"the ledger is switched off ({VARIABLE} = off)")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, self.patience, isolation_level=None)) as connection:
                self._prepare(connection)
                connection.execute(f"BEGIN {kind}")
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError, UnicodeError) as error:  # a path may hold bytes that are no text
            raise UserError(f"{self.path}: the ledger cannot be used ({error})") from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table where there is none, in write-ahead mode: readers and a writer then never wait."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise UserError(f"{self.path}: this ledger was written by a newer Kiln; update Kiln, or set {VARIABLE}")
        if version == len(MIGRATIONS):
            return
        self._write_ahead(connection)
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]  # another process may have been first
        for script in MIGRATIONS[version:]:
            connection.execute(script)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        until = time.monotonic() + self.patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:  # SQLite does not wait here by itself when another process opens it too
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colours."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


def process_mark(pid: int) -> str:
    """A process's number and the tick it began at; without /proc its number alone; '' where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return f"{pid}:{stat.rpartition(')')[2].split()[19]}"
    except OSError:
        pass
    if Path("/proc/self/stat").exists() or os.name != "posix":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return str(pid)


def alive(one: Entry) -> Entry:
    """The entry, `killed` where it says that it runs and its process on this machine is gone."""
    if one.status != "running" or one.host != platform.node() or not one.process:
        return one
    pid = int(one.process.partition(":")[0])
    return one if process_mark(pid) == one.process else replace(one, status="killed")


def _kept(one: Entry, old: Entry) -> Entry:
    """The entry with the notes, tags and price that `old` has, its own after them."""
    notes = dict.fromkeys([*old.notes.splitlines(), *one.notes.splitlines()])
    tags = dict.fromkeys([*old.tags, *one.tags])
    price = old.price if one.price is None else one.price
    return replace(one, notes="\n".join(notes), tags=tuple(tags), price=price)


def _get(connection: sqlite3.Connection, id: str) -> Entry | None:
    row = connection.execute(f"SELECT {_NAMES} FROM runs WHERE id = ?", (id,)).fetchone()
    return _entry(row) if row else None


def _put(connection: sqlite3.Connection, one: Entry) -> None:
    table = {name: getattr(one, name) for name in COLUMNS}
    table |= {name: json.dumps(table[name]) for name in AS_JSON}
    changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
    marks = ", ".join("?" * len(COLUMNS))
    insert = f"INSERT INTO runs ({_NAMES}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"
    connection.execute(insert, list(table.values()))


def _entry(row: tuple[Any, ...]) -> Entry:
    table: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    table |= {name: json.loads(table[name]) for name in AS_JSON}
    table["tags"] = tuple(table["tags"])
    return Entry(**table)
