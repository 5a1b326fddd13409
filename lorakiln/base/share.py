"""The ledger as CSV or JSON: findings are for sharing, the maker's folders and machine's name are not."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.files import write_text
from lorakiln.base.ledger import AS_JSON, COLUMNS, STATUSES, Entry, printable
from lorakiln.base.recipe import portable

PRIVATE = ("origin", "host", "process", "folder")
SHARED = tuple(name for name in COLUMNS if name not in PRIVATE)
FORMS = (".csv", ".json")
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?[/\\](?:[^\s:/\\]+[/\\])+")
_NEEDED = ("id", "name", "status")
_KINDS = {one.name: one.type for one in fields(Entry)}


def table_of(one: Entry) -> dict[str, Any]:
    """A run as others may see it: no path, no host."""
    table = {name: getattr(one, name) for name in SHARED}
    base = portable({"base": one.base})["base"]
    error = _FOLDERS.sub("", one.error)
    return table | {"base": base, "error": error, "tags": list(one.tags), "recipe": portable(one.recipe)}


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Write the runs as CSV or JSON, as the file's name says. Raises UserError for another form or a full disk."""
    form, tables = _form(path), [table_of(one) for one in entries]
    if form == ".json":
        write_text(path, json.dumps({"runs": tables}, indent=1) + "\n")
        return
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, SHARED, lineterminator="\n")
    rows.writeheader()
    for table in tables:
        rows.writerow(table | {name: json.dumps(table[name]) for name in AS_JSON})
    write_text(path, text.getvalue())


def read(path: Path) -> list[Entry]:
    """The runs in a file that `write` made, `origin` saying which file. Columns that are not known are left out.

    Raises UserError naming the row and what is wrong with it.
    """
    form = _form(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if form == ".csv":
            tables: Any = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            tables = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not readable ({error})") from None
    tables = tables.get("runs") if isinstance(tables, dict) else tables
    if not isinstance(tables, list):
        raise UserError(f"{path}: holds no runs; it should be a list of them, or a table with 'runs'")
    return [_entry(table, f"{path}, run {number}", path.name) for number, table in enumerate(tables, start=1)]


def _form(path: Path) -> str:
    if path.suffix.lower() not in FORMS:
        raise UserError(f"{path}: write the name with {' or '.join(FORMS)}, which says the form")
    return path.suffix.lower()


def _entry(table: Any, where: str, origin: str) -> Entry:
    if not isinstance(table, dict) or any(not isinstance(table.get(name), str) or not table[name] for name in _NEEDED):
        raise UserError(f"{where}: a run needs {', '.join(_NEEDED)}")
    if table["status"] not in STATUSES:
        raise UserError(f"{where}: status = {table['status']!r}: choose from {', '.join(STATUSES)}")
    try:
        values = {name: _value(name, table[name]) for name in SHARED if name in table}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: {error}") from None
    one = Entry(**{name: value for name, value in values.items() if value is not None})
    return replace(one, origin=origin)


def _value(name: str, value: Any) -> Any:
    """A column's value in its own kind; text that CSV made of it is read again."""
    kind = _KINDS[name]
    if name in AS_JSON:
        value = json.loads(value) if isinstance(value, str) else value
        if name == "tags":
            return tuple(printable(str(tag)) for tag in value)
        if name == "seconds":
            return {printable(str(stage)): _number(name, seconds) for stage, seconds in value.items()}
        return portable({**value})
    if kind is str:
        return printable(str(value or ""))
    if value in ("", None):
        return None
    number = _number(name, value)
    return int(number) if kind is int else number


def _number(name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} = {value}: must be a finite number, at least 0")
    return number
