"""Writing files so that a reader, or a power cut, never meets half of one."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from lorakiln.base.errors import UserError


@contextlib.contextmanager
def atomic(path: Path) -> Generator[BinaryIO]:
    """A binary file that appears under `path` whole or not at all: temp file, fsync, rename.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
            temporary = None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn a full disk and missing permission into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path}: the disk is full; free some space, then continue with --resume") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically."""
    with atomic(path) as stream:
        stream.write(text.encode())


def sha256(path: Path) -> str:
    """Hex digest of a whole file, read in 1 MiB pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
