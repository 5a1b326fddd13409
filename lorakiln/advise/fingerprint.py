"""A base known by its content, whatever its file is called: a hash of samples of it, and what the user said it is.

The hash reads the header and a few places of the weights, a second at most where the whole file takes a minute; so it
cannot be compared with the hashes of whole files that are published. It is kept by path, size and time of change.
"""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.files import write_text
from lorakiln.base.ledger import place

FILE = "bases.json"  # beside the ledger; may be deleted at any time, but for what the user said
HEAD = 2**20  # bytes from the start, where the header lies
PIECE, PIECES = 2**17, 16  # bytes of each further sample, and how many


def sampled(path: Path) -> str:
    """Hex hash of a file's length, its start, and evenly spaced samples up to its last byte: 3 MiB at most."""
    size = path.stat().st_size
    found = hashlib.sha256(f"{size} ".encode())
    with path.open("rb") as stream:
        found.update(stream.read(HEAD))
        for number in range(1, PIECES + 1):
            start = HEAD + (size - HEAD - PIECE) * number // PIECES
            if start >= HEAD:
                stream.seek(start)
                found.update(stream.read(PIECE))
    return found.hexdigest()


def content(path: Path) -> str:
    """`sampled`, remembered while path, size and time of change stay the same; '' for a file that cannot be read."""
    try:
        status = path.stat()
        known = _read()
        key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
        row = known["files"].get(key)
        if isinstance(row, list) and row[:2] == stamp and len(row) == 3:
            return row[2]
        found = sampled(path)
    except OSError:
        return ""
    there = {name: row for name, row in known["files"].items() if Path(name).exists()}
    known["files"] = there | {key: [*stamp, found]}
    with contextlib.suppress(UserError):  # a disk that is full costs the memory, not the answer
        _write(known)
    return found


def told(content: str) -> str:
    """The profile that the user gave this content, or ''."""
    return str(_read()["profiles"].get(content, "")) if content else ""


def tell(path: Path, profile: str) -> None:
    """Remember that this file is of that profile. Raises UserError where that cannot be written."""
    found = content(path)
    known = _read()
    known["profiles"][found] = profile
    _write(known)


def whole(path: Path) -> str:
    """The SHA-256 of the whole file where that is known without reading it (a Hugging Face cache names its files by
    it), else ''."""
    real = path.resolve()
    return real.name if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name) else ""


def _store() -> Path | None:
    ledger = place()
    return ledger.with_name(FILE) if ledger else None


def _read() -> dict[str, Any]:
    store = _store()
    try:
        known = json.loads(store.read_text(encoding="utf-8")) if store else {}
    except (OSError, ValueError):
        known = {}
    tables = known if isinstance(known, dict) else {}
    return {name: tables[name] if isinstance(tables.get(name), dict) else {} for name in ("files", "profiles")}


def _write(known: dict[str, Any]) -> None:
    store = _store()
    if store:
        write_text(store, json.dumps(known, indent=1, sort_keys=True))
