"""Kohya's metadata files: one JSON object by picture, or a JSON line a picture; captions and tags apart."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.files import write_text
from lorakiln.tag import caption
from lorakiln.tag.caption import Caption, Line
from lorakiln.tag.captions import parse


def read(path: Path, folder: Path, names: Collection[str]) -> dict[str, Caption]:
    """Captions from JSON or JSONL by picture name; `names` are the pictures below `folder`.

    As in kohya, an entry's tags stand in one line with its caption, in each line of a caption of several. Keys may be
    absolute, relative, of another machine, or without an extension. Raises UserError for what is no such file, for a
    key that is no picture of the folder, and for two keys that are one picture.
    """
    path = Path(path)
    keys: dict[str, str] = {}
    found: dict[str, Caption] = {}
    known = {str(PurePosixPath(name).with_suffix("")): name for name in names} | {name: name for name in names}
    for key, entry in _entries(path).items():
        name = next((known[guess] for guess in _guesses(key, folder) if guess in known), None)
        if name is None:
            raise UserError(f"{path}: '{key}' is no picture in {folder}")
        if name in keys:
            raise UserError(f"{path}: '{keys[name]}' and '{key}' are both {name!r} in {folder}; name their folders")
        keys[name] = key
        tags, text = (entry.get(kind) or "" for kind in ("tags", "caption"))
        if not isinstance(tags, str) or not isinstance(text, str):
            raise UserError(f"{path}: '{key}': caption and tags must be text")
        lines = caption.read(text).lines or (Line(),)
        joined = (replace(line, tags=tuple(dict.fromkeys([*parse(tags), *line.tags]))) for line in lines)
        found[name] = Caption(tuple(line for line in joined if line.text))
    return found


def write(path: Path, captions: Mapping[str, Caption]) -> None:
    """Write JSON, or JSON lines where the name ends in .jsonl, whole or not at all.

    Tags and sentence of one line are told apart; of several lines all is the caption, as it stands in the file.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, one in captions.items():
        line = one.lines[0] if len(one.lines) == 1 else Line((), one.text())
        row = {"caption": line.sentence, "tags": ", ".join(line.tags)}
        rows[name] = {kind: text for kind, text in row.items() if text}
    if Path(path).suffix.lower() == ".jsonl":
        write_text(path, "".join(_dumped({"image_path": name, **row}) + "\n" for name, row in rows.items()))
    else:
        write_text(path, _dumped(rows, indent=2) + "\n")


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            table = {row["image_path"]: row for row in rows}
        else:
            table = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no kohya metadata ({error})") from None
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise UserError(f"{path}: is no kohya metadata; it holds one object for each picture")
    return table


def _dumped(value: object, indent: int | None = None) -> str:
    """JSON in readable letters; in escapes where a file name holds bytes that are no UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text if not re.search("[\ud800-\udfff]", text) else json.dumps(value, indent=indent)


def _guesses(key: str, folder: Path) -> Iterator[str]:
    """The names that a key may mean, the surest first: as it stands, then without its foremost folders."""
    yield key
    if Path(key).is_absolute():
        yield os.path.relpath(key, folder)
    parts = PurePosixPath(key.replace("\\", "/")).parts
    yield from ("/".join(parts[at:]) for at in range(len(parts)))
