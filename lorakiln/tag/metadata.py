"""Kohya's metadata files: one JSON object by picture, or a JSON line a picture; captions and tags apart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.files import write_text
from lorakiln.tag.caption import Caption
from lorakiln.tag.captions import parse


def read(path: Path, folder: Path) -> dict[str, Caption]:
    """Captions by picture name below `folder`, from JSON or JSONL.

    Keys may be absolute, relative or without an extension. Raises UserError for what is no such file, and for a key
    that is no picture of the folder.
    """
    path, found = Path(path), {}
    for key, entry in _entries(path).items():
        picture = _picture(key, folder)
        if picture is None:
            raise UserError(f"{path}: '{key}' is no picture in {folder}")
        tags, sentence = (entry.get(name) or "" for name in ("tags", "caption"))
        if not isinstance(tags, str) or not isinstance(sentence, str):
            raise UserError(f"{path}: '{key}': caption and tags must be text")
        found[picture.relative_to(folder).as_posix()] = Caption(parse(tags), sentence.strip(), bool(tags and sentence))
    return found


def write(path: Path, captions: Mapping[str, Caption], sizes: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Write JSON, or JSON lines where the name ends in .jsonl, whole or not at all."""
    rows = {}
    for name, caption in captions.items():
        row: dict[str, Any] = {}
        if caption.sentence:
            row["caption"] = caption.sentence
        if caption.tags:
            row["tags"] = ", ".join(caption.tags)
        if sizes and name in sizes:
            row["image_size"] = list(sizes[name])
        rows[name] = row
    if Path(path).suffix.lower() == ".jsonl":
        lines = [json.dumps({"image_path": name, **row}, ensure_ascii=False) for name, row in rows.items()]
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        write_text(path, json.dumps(rows, ensure_ascii=False, indent=2) + "\n")


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
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


def _picture(key: str, folder: Path) -> Path | None:
    path = folder / key  # an absolute key stays as it is
    if path.is_file() and path.is_relative_to(folder):
        return path
    for extension in sorted(images.EXTENSIONS):
        guess = path.with_name(path.name + extension)
        if guess.is_file() and guess.is_relative_to(folder):
            return guess
    inside = folder / Path(key).name  # written on another machine, under another path
    return inside if inside.is_file() else None
