"""Writing files so that a reader, or a power cut, never meets half of one."""

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from lorakiln.base.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# No permission, or a name and place that no file can have.
_REFUSED = (
    errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
)  # fmt: skip


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
            handle, temporary = tempfile.mkstemp(prefix=".kiln-", suffix=".tmp", dir=path.parent)
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
    """Turn a full disk, missing permission and a place where no file can be into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"{path}: the disk is full; free some space and try again") from error
        if error.errno in _REFUSED:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically."""
    with atomic(path) as stream:
        stream.write(text.encode())


@contextlib.contextmanager
def alone(place: Path, busy: str) -> Generator[None]:
    """Hold the lock file `place`; the lock goes with the process, however it ends. Raises UserError(`busy`) when
    another process holds it."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        stream = place.open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(busy) from None
        yield


def sha256(path: Path) -> str:
    """Hex digest of a whole file, read in 1 MiB pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
