"""The folder in which saliency maps lie: one `.npy` per image under the image's name, and a manifest saying whose.

<maps>/settings.json           what the maps depend on, written before the first of them
<maps>/<class>/<stem>.npy      float32, (height, width), values in [0, 1]
<maps>/manifest.json           settings, counts and provenance, written after the last of them
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from misc.atomic import write_atomically
from misc.errors import UserError

SETTINGS = "settings.json"
MANIFEST = "manifest.json"


def relative_image_names(root: str | Path, image_paths: Iterable[str]) -> list[str]:
    """Returns each image's path below `root`, with forward slashes: `cat/0001.jpg`."""
    prefix = os.path.join(root, "")
    return [path.removeprefix(prefix).replace(os.sep, "/") for path in image_paths]


def map_names(image_names: Sequence[str]) -> list[str]:
    """Returns the map's name for each image's name: `cat/0001.jpg` -> `cat/0001.npy`.

    Raises:
        UserError: two images differ in their suffix only, so that they would share a map.
    """
    owners: dict[str, str] = {}
    for image in image_names:
        name = os.path.splitext(image)[0] + ".npy"
        if name in owners:
            raise UserError(f"{owners[name]} and {image} would share the map {name}: rename one of the images")
        owners[name] = image
    return list(owners)


def dataset_identity(root: str | Path, image_names: Iterable[str]) -> str:
    """Returns the sha256 of the images' sorted relative names and sizes: equal for equal trees, wherever they lie."""
    lines = (f"{name} {os.path.getsize(os.path.join(root, name))}\n" for name in sorted(image_names))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def existing_maps(root: str | Path) -> set[str]:
    """Returns the names of the maps below `root`, found by listing folders; no file is opened."""
    paths = (os.path.join(folder, file) for folder, _, files in os.walk(root) for file in files)
    return set(relative_image_names(root, (path for path in paths if path.endswith(".npy"))))


def write_map(path: Path, saliency: np.ndarray) -> None:
    """Writes one map, (height, width), as float32."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(saliency, dtype=np.float32))
    write_atomically(path, buffer.getvalue())


def read_map(path: Path) -> np.ndarray:
    """Returns one map, float32 of shape (height, width).

    Raises:
        UserError: the file is not a map.
    """
    try:
        saliency = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a saliency map ({error}): delete it and make the maps again") from None
    if saliency.ndim != 2:
        raise UserError(f"{path} has shape {saliency.shape}, not (height, width): delete it and make the maps again")
    return saliency.astype(np.float32, copy=False)


def write_json(path: Path, content: dict) -> None:
    """Writes `content` as indented JSON."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict:
    """Returns the file's content.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): make the maps again in an empty folder") from None
