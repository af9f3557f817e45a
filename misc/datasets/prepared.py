"""Atomic preparation of a data set's folder, described by a manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from misc.errors import UserError
from misc.files import write_atomically

MANIFEST = "manifest.json"


def make_data_set(root: Path, wanted: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write the folder of a data set, unless it already exists with the same manifest.

    The folder is filled as ROOT.unfinished and renamed when complete. If a killed run left one with the same `wanted`,
    `write` continues from it; any other is deleted.

    Args:
        root: the folder.
        wanted: what determines the content, in JSON types.
        write: fills the given folder, which may be partly filled; returns further entries of the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: the folder holds something else, or is a mount point, which cannot be the target of a rename.
    """
    root = root.resolve()
    if (root / MANIFEST).is_file():
        return _existing(root, wanted)
    if root.is_mount():
        raise UserError(f"{root} is where a file system is mounted: name a folder inside it")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} holds other files: name an empty folder for the data set")
    unfinished = root.with_name(f"{root.name}.unfinished")
    if _difference(unfinished, wanted):
        shutil.rmtree(unfinished, ignore_errors=True)
        _write_manifest(unfinished, wanted)
    manifest = {**wanted, **write(unfinished)}
    _write_manifest(unfinished, manifest)
    if root.is_dir():
        root.rmdir()
    unfinished.rename(root)
    return manifest


def _existing(root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    if difference := _difference(root, wanted):
        raise UserError(f"{root} holds a data set with {difference}: name another folder")
    return _read_manifest(root)


def _difference(root: Path, wanted: dict[str, Any]) -> str | None:
    """Return the first difference of a folder's manifest from the wanted one; None if there is none."""
    manifest = _read_manifest(root)
    for key, value in wanted.items():
        if manifest.get(key) != value:
            values = f"{key}={manifest.get(key)}, not {value}"
            return values if len(values) < 100 else f"other {key}"
    return None


def _read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    write_atomically(root / MANIFEST, json.dumps(manifest, indent=1).encode())
