"""A data set's folder: made all of it or nothing, described by its manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from misc.atomic import write_atomically
from misc.errors import UserError

MANIFEST = "manifest.json"


def make_data_set(root: Path, wanted: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Makes the folder of a data set, unless it is there with the same manifest.

    Args:
        root: the folder; it appears when everything is in it.
        wanted: what decides the content, in JSON's own types.
        write: fills the folder that it is given; returns what the manifest holds besides.

    Returns:
        The manifest.

    Raises:
        UserError: the folder holds something else.
    """
    if (root / MANIFEST).is_file():
        return _existing(root, wanted)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} holds other files: name an empty folder for the data set")
    unfinished = root.with_name(f"{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    manifest = {**wanted, **write(unfinished)}
    write_atomically(unfinished / MANIFEST, json.dumps(manifest, indent=1).encode())
    if root.is_dir():
        root.rmdir()
    unfinished.rename(root)
    return manifest


def _existing(root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    manifest = json.loads((root / MANIFEST).read_text())
    for key, value in wanted.items():
        if manifest.get(key) != value:
            raise UserError(f"{root} holds a data set with {key}={manifest.get(key)}, not {value}: name another folder")
    return manifest
