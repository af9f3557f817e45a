"""Files that are whole or not there, or one line that says why not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from misc.atomic import open_atomically
from misc.errors import UserError


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write that takes the place of `path` when the context ends without an error.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
    """
    try:
        with open_atomically(path) as file:
            yield file
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """Returns the error to raise for a place that cannot be written to."""
    return UserError(f"{path} cannot be written ({error.strerror}): expected a place with room and the right to write")
