"""A folder of saliency maps: one `.npy` per image or per class, and a manifest of settings and provenance.

<maps>/settings.json           what the maps depend on, written before the first of them
<maps>/<class>/<stem>.npy      one map, (height, width): float32 or float16 in [0, 1], or uint8 in [0, 255]
<maps>/<class>.npy             or packed: the N maps of a class, (N, height, width)
<maps>/<class>.json            and their names, {"names": ["<stem>.npy", ...]}, in the order of the rows
<maps>/manifest.json           settings, counts and provenance, written after the last of them

With one map per layer, each layer has such a folder, <maps>/<layer>.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from misc.errors import UserError, first_few
from misc.files import written

SETTINGS = "settings.json"
MANIFEST = "manifest.json"
DTYPES = ("float32", "float16", "uint8")
AGAIN = "delete it and make the maps again"
ANEW = "make the maps again in an empty folder"


def relative_image_names(root: str | Path, image_paths: Iterable[str]) -> list[str]:
    """Return each image's path below `root`, with forward slashes: `cat/0001.jpg`."""
    prefix = os.path.join(root, "")
    return [path.removeprefix(prefix).replace(os.sep, "/") for path in image_paths]


def map_names(image_names: Sequence[str]) -> list[str]:
    """Return the map's name for each image's name: `cat/0001.jpg` -> `cat/0001.npy`.

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
    """Return the sha256 of the images' sorted relative names and sizes, wherever the tree lies."""
    lines = (f"{name} {os.path.getsize(os.path.join(root, name))}\n" for name in sorted(image_names))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class MapFolder:
    """Reads a folder of maps of either format; images and maps are matched by name.

    Files are opened on first use, and instances can be pickled.

    Args:
        root: the folder; one that does not exist has no maps.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    @cached_property
    def manifest(self) -> dict:
        """Settings, counts and provenance of the maps.

        Raises:
            UserError: no manifest, or a damaged one.
        """
        if not (self.root / MANIFEST).is_file():
            self._refuse_folder_of_layers()
            raise UserError(
                f"{self.root} has no {MANIFEST}: make the maps with saliency_maps/cam_prep/cam_map_generation.py "
                "(saliency_maps/README.md; of a classifier of your own: config/own/README.md)"
            )
        manifest = read_json(self.root / MANIFEST)
        if not isinstance(manifest.get("settings", {}), dict):
            raise UserError(f"{self.root / MANIFEST} holds no settings: {ANEW}")
        return manifest

    def _refuse_folder_of_layers(self) -> None:
        layers = sorted(path.parent.name for path in self.root.glob(f"*/{MANIFEST}"))
        if layers:
            raise UserError(f"{self.root} has maps in a folder for each layer: give one of {', '.join(layers)} in it")

    @cached_property
    def names(self) -> frozenset[str]:
        """The maps' names, `cat/0001.npy`, found by listing folders; no map is opened."""
        packed = (name for pack in self._packs.values() for name in pack.names)
        return frozenset(packed) | {name for name, _ in single_maps(self.root)}

    def read(self, name: str) -> np.ndarray:
        """Return one map, float32 of shape (height, width) with values in [0, 1].

        Raises:
            UserError: the map is missing or damaged.
        """
        class_name, _, rest = name.partition("/")
        pack = self._packs.get(class_name)
        if pack is not None and rest in pack.rows:
            return decoded(pack.values[pack.rows[rest]])
        path = self.root / name
        saliency = load_array(path)
        if saliency.ndim != 2:
            raise UserError(f"{path} has shape {saliency.shape}, not (height, width): {AGAIN}")
        return decoded(saliency)

    def check_complete(self, names: Sequence[str]) -> None:
        """Check that each of some maps exists.

        Raises:
            UserError: some are missing; it names how many and the first.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(names)} maps are missing in {self.root} "
                f"({first_few(missing)}): "
                "give the command that made the others again and it makes these"
            )

    @cached_property
    def _packs(self) -> dict[str, "Pack"]:
        return {name: Pack(self.root, name) for name in packed_classes(self.root)}


class Pack:
    """The maps of one class in one file, `<class>.npy`, and their names in the order of its rows, `<class>.json`.

    The index is written last and replaces an older one atomically. A file without an index is therefore no pack yet,
    and one with more rows than names is about to get its longer index.

    Args:
        root: the folder of maps.
        class_name: the class's folder.
    """

    def __init__(self, root: Path, class_name: str) -> None:
        self.path = root / f"{class_name}.npy"
        self.index_path = self.path.with_suffix(".json")
        self.class_name = class_name

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each image, by the map's name within the class.

        Raises:
            UserError: the index is damaged.
        """
        names = read_json(self.index_path).get("names")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not is_list or len(set(names)) != len(names):
            raise UserError(f"{self.index_path} has no list of different names: {AGAIN}")
        return {name: row for row, name in enumerate(names)}

    @property
    def names(self) -> list[str]:
        """The maps' names, `cat/0001.npy`, in the order of the rows."""
        return [f"{self.class_name}/{name}" for name in self.rows]

    @cached_property
    def values(self) -> np.ndarray:
        """All maps, (N, height, width), as they are stored, mapped into memory.

        Raises:
            UserError: the file is damaged.
        """
        values = load_array(self.path, mmap_mode="r")
        if values.ndim != 3 or len(values) < len(self.rows):
            raise UserError(f"{self.path} has shape {values.shape}, not ({len(self.rows)}, height, width): {AGAIN}")
        return values

    def is_whole(self, map_size: tuple[int, int], dtype: str) -> bool:
        """Tell whether header, index and size of the file fit maps of this size and dtype."""
        try:
            shape = self.values.shape
        except UserError:
            return False
        return (
            shape[1:] == map_size and self.values.dtype == dtype and self.path.stat().st_size == file_size(shape, dtype)
        )

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as a copy of all its values.
        return {key: value for key, value in vars(self).items() if key != "values"}


def packed_classes(root: str | Path) -> list[str]:
    """Return the classes whose maps are packed."""
    if not os.path.isdir(root):
        return []
    indices = (entry.name.removesuffix(".json") for entry in os.scandir(root) if entry.name.endswith(".json"))
    return sorted(name for name in indices if os.path.isfile(os.path.join(root, f"{name}.npy")))


def single_maps(root: str | Path) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield the name, `cat/0001.npy`, and the directory entry of each map that has a file of its own."""
    folders = [entry for entry in os.scandir(root) if entry.is_dir()] if os.path.isdir(root) else []
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(".npy"):
                yield relative_image_names(root, [entry.path])[0], entry


def load_array(path: Path, mmap_mode: str | None = None) -> np.ndarray:
    """Return the stored values of a file of maps.

    Raises:
        UserError: no such file, a damaged one, or values of another type.
    """
    try:
        values = np.load(path, mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make the maps again and the command makes this one") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a saliency map ({error}): {AGAIN}") from None
    if values.dtype.name not in DTYPES:
        raise UserError(f"{path} holds {values.dtype}, not one of {', '.join(DTYPES)}: {AGAIN}")
    return values


def encoded(saliency: np.ndarray, dtype: str) -> np.ndarray:
    """Return values in [0, 1] as they are stored: as a float, or in 255 steps."""
    return np.rint(255 * saliency).astype(np.uint8) if dtype == "uint8" else saliency.astype(dtype)


def decoded(stored: np.ndarray) -> np.ndarray:
    """Return stored values as float32 in [0, 1]."""
    values = np.array(stored, dtype=np.float32)  # no longer mapped to a file
    return values / 255 if stored.dtype == np.uint8 else values


def write_map(path: Path, saliency: np.ndarray, dtype: str = "float32") -> None:
    """Write one map, (height, width) in [0, 1], as one of `DTYPES`."""
    with written(path) as file:
        np.save(file, encoded(saliency, dtype))


def write_pack(root: Path, class_name: str, names: Sequence[str]) -> None:
    """Move the maps of a class into one file; a kill at any moment loses no map and leaves no partial one.

    An existing pack grows at its end, so that its old index fits the new file until the new index is written.

    Args:
        root: the folder of maps, all of one size and dtype.
        class_name: the class's folder.
        names: the maps of the class, `cat/0001.npy`, in the order of the data set; those that have neither a file nor
            a row in the pack are left out.
    """
    old = Pack(root, class_name) if class_name in packed_classes(root) else None
    rows = old.names if old else []
    held = set(rows)
    singles = [name for name in names if (root / name).is_file()]
    new = [name for name in singles if name not in held]
    if new:
        _write_rows(root, class_name, old, new)
        write_json(Pack(root, class_name).index_path, {"names": [name.partition("/")[2] for name in [*rows, *new]]})
    for name in singles:
        (root / name).unlink()
    with suppress(OSError):  # the folder is not empty, or never existed
        (root / class_name).rmdir()


def _write_rows(root: Path, class_name: str, old: Pack | None, new: Sequence[str]) -> None:
    num_old = len(old.rows) if old else 0
    first = load_array(root / new[0])
    with written(Pack(root, class_name).path) as file:
        file.write(file_header((num_old + len(new), *first.shape), first.dtype.name))
        for row in range(num_old):
            file.write(old.values[row].tobytes())
        for name in new:
            file.write(load_array(root / name).tobytes())


def file_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the beginning of an `.npy` file, in front of the values."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def file_size(shape: tuple[int, ...], dtype: str) -> int:
    """Return the number of bytes of an `.npy` file."""
    return len(file_header(shape, dtype)) + math.prod(shape) * np.dtype(dtype).itemsize


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON."""
    with written(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict:
    """Return the file's content.

    Raises:
        UserError: the file is not JSON, or no object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {ANEW}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object, {{...}}: {ANEW}")
    return content
