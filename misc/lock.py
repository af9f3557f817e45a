"""One process at a time where two would destroy each other's files."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from misc.errors import UserError
from saliency_maps.writing import unwritable


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Holds a lock for as long as the context or the process lasts. Where the file system has no locks, none is held.

    Args:
        path: the lock's file; its folder is made if need be.
        busy: what to say where another process holds it.

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
            # Unlike flock's, such a lock is not shared by the processes that read images, which outlive a kill.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise UserError(busy) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # the run before removed the file after it was opened here
