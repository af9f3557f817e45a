"""Files that are whole or not there: written under a temporary name, flushed, then renamed."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # the names that mkstemp gives below


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes `content` to `path`; a crash at any moment leaves the old file or the new one, never a part."""
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Gives a file to write that takes the place of `path` when the context ends without an error."""
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


def is_temporary(name: str) -> bool:
    """Tells whether a file's name is one that a killed process leaves behind."""
    return TEMPORARY.fullmatch(name) is not None


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
