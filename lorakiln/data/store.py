"""Tensors kept under a key, in memory or one safetensors file each; a damaged file reads as a missing one."""

import contextlib
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError

from lorakiln.base import files
from lorakiln.base.errors import UserError

Tensors = dict[str, torch.Tensor]
# An interrupted write leaves a temporary file. One this old (seconds) belongs to no process that still writes it.
_ABANDONED = 3600


class Store(Protocol):
    """Where a cache keeps its entries."""

    def get(self, key: str) -> Tensors | None: ...
    def need(self, keys: Iterable[str]) -> None: ...
    def put(self, key: str, tensors: Tensors) -> bool: ...


def open_store(where: Path | str, limit: int = 0) -> Store | None:
    """A folder of files, "memory" of at most `limit` bytes (0: no limit), or None for "off"."""
    if where == "off":
        return None
    return MemoryStore(limit) if where == "memory" else DiskStore(Path(where))


def key_of(parts: dict[str, object]) -> str:
    """32 hex digits for the named parts; any other name or value gives another key."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class DiskStore:
    """`folder/ab/abcd....safetensors`, each written whole or not at all; processes may share the folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; the cache needs a folder")
        self._sweep()

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> Tensors | None:
        """The tensors written under `key`, or None where there are none, or not all of them, or changed ones."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        try:
            tensors = safetensors.torch.load(data)
            note = json.loads(_metadata(data)["kiln"])
        except (SafetensorError, ValueError, KeyError):
            return None
        return tensors if note == {"key": key, "sum": _checksum(tensors)} else None

    def need(self, keys: Iterable[str]) -> None:
        """Nothing here is ever dropped."""

    def put(self, key: str, tensors: Tensors) -> bool:
        """Write atomically; True. Raises UserError when the disk is full or the folder cannot be written."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
        # One metadata key: the library writes several in random order.
        note = json.dumps({"key": key, "sum": _checksum(tensors)}, sort_keys=True)
        with files.atomic(self.path(key)) as stream:
            stream.write(safetensors.torch.save(tensors, metadata={"kiln": note}))
        return True

    def _sweep(self) -> None:
        for leftover in self.folder.glob("??/.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()


class MemoryStore:
    """The same in this process only; `limit` bytes (0: no limit): the longest unused go first, the needed never."""

    def __init__(self, limit: int = 0):
        self.limit = limit
        self.used = 0
        self._entries: OrderedDict[str, Tensors] = OrderedDict()
        self._needed: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def get(self, key: str) -> Tensors | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def need(self, keys: Iterable[str]) -> None:
        """From now on the entries under `keys` are not dropped for others."""
        with self._lock:
            self._needed = frozenset(keys)

    def put(self, key: str, tensors: Tensors) -> bool:
        """Keep the tensors if they fit beside those that are needed; whether they did."""
        size = _size(tensors)
        with self._lock:
            self._drop(key)
            while self.limit and self._entries and self.used + size > self.limit:
                old = next((old for old in self._entries if old not in self._needed), None)
                if old is None:
                    return False
                self._drop(old)
            self._entries[key] = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
            self.used += size
            return True

    def _drop(self, key: str) -> None:
        self.used -= _size(self._entries.pop(key, {}))


def _size(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def _checksum(tensors: Tensors) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
