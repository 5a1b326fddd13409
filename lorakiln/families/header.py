"""The first kilobytes of a .safetensors file: what it holds, read and checked before a single weight is."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakiln.base import pickles
from lorakiln.base.errors import UserError

LONGEST = 100_000_000  # bytes of header that the safetensors format allows
HOW_TO_CONVERT = (
    "a pickle can run code when it is read: convert it once with a tool you trust "
    "(ComfyUI's or A1111's 'save as safetensors') and name the .safetensors file"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies and what it is; `dtype` in safetensors' words (F16, BF16, ...)."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """A file's metadata and its tensors by key."""

    metadata: dict[str, str]
    entries: dict[str, Entry]


def read(path: Path) -> Header:
    """The header of `path`, after checking that all the weights it promises are there.

    Raises UserError for a pickle, a file that is no safetensors, and one that is shorter than it says.
    """
    path = Path(path)
    if path.suffix.lower() in pickles.SUFFIXES:
        raise UserError(f"{path}: only .safetensors is read; {HOW_TO_CONVERT}")
    try:
        table, start, size = _json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    metadata = table.pop("__metadata__", None) or {}
    entries, end = {}, 0
    for key, row in table.items():
        if not isinstance(row, dict) or not {"dtype", "shape", "data_offsets"} <= row.keys():
            raise UserError(f"{path}: not a .safetensors file (its entry '{key}' is malformed)")
        entries[key] = Entry(path, key, row["dtype"], tuple(row["shape"]))
        end = max(end, row["data_offsets"][1])
    if start + end > size:
        raise UserError(f"{path}: truncated, {size:,} bytes of {start + end:,}; download or copy it again")
    return Header(metadata, entries)


def parse(metadata: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    """A JSON object kept in the metadata under `key`; empty where there is none."""
    if key not in metadata:
        return {}
    try:
        value = json.loads(metadata[key])
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: its header's '{key}' is not JSON ({error.msg} at character {error.pos})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: its header's '{key}' must be a JSON object, not {type(value).__name__}")
    return value


def count(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor of this shape."""
    return math.prod(shape)


def _json(path: Path) -> tuple[dict[str, Any], int, int]:
    """(header, where the weights start, size of the file)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(pickles.START)
        length = int.from_bytes(first[:8], "little")
        if pickles.begins_as_pickle(first):
            raise UserError(f"{path}: a pickle in spite of its name; {HOW_TO_CONVERT}")
        if len(first) < 8 or not 2 <= length <= LONGEST:
            raise UserError(f"{path}: not a .safetensors file ({size:,} bytes)")
        if 8 + length > size:
            raise UserError(f"{path}: truncated, {size:,} bytes where its header alone takes {8 + length:,}")
        try:
            stream.seek(8)
            table = json.loads(stream.read(length))
        except ValueError as error:
            raise UserError(f"{path}: not a .safetensors file (its header is not JSON)") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: not a .safetensors file (its header is not a table)")
    return table, 8 + length, size
