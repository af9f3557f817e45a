"""Atomic file writes, locks between processes, and the repository's root."""

import errno
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from misc.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # the repository
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # as mkstemp names them below


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`; a crash leaves either the old file or the complete new one.

    Raises:
        OSError: from the system; `written` turns it into a UserError.
    """
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the context ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Open a file as `open_atomically` does, with errors for the user.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
    """
    try:
        with open_atomically(path) as file:
            yield file
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error to raise for a place that cannot be written to."""
    return UserError(f"{path} cannot be written ({error.strerror}): expected a place with room and the right to write")


def is_temporary(name: str) -> bool:
    """Tell whether a file name is that of a temporary file, left behind by a killed process."""
    return TEMPORARY.fullmatch(name) is not None


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock until the context or the process ends; on a file system without locks, hold none.

    Args:
        path: the lock file; its folder is created if needed.
        busy: the error message if another process holds the lock.

    Raises:
        UserError: another process holds it, or its folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path, busy)
    except OSError as error:
        raise unwritable(path.parent, error) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, busy: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Unlike flock's, this lock is not inherited by data-loading workers, which may outlive a killed parent.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise UserError(busy) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # the previous holder removed the file after it was opened here


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
