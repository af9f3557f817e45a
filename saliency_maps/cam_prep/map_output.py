"""One folder of maps that a run fills: opened, repaired, written to, packed by class, described by its manifest."""

import importlib.metadata
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from misc.errors import UserError
from misc.files import is_temporary
from saliency_maps.cam_prep.methods.mapper import NO_PREFERENCE
from saliency_maps.map_folder import (
    MANIFEST,
    SETTINGS,
    MapFolder,
    Pack,
    decoded,
    encoded,
    file_header,
    file_size,
    packed_classes,
    read_json,
    single_maps,
    write_json,
    write_map,
    write_pack,
)

FORMATS = ("npy", "packed")
LOCK = ".lock"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


class MapOutput:
    """The folder, what is wanted in it and what it lacks.

    Args:
        root: the folder; made by `open`.
        settings: all that the maps depend on; `format`, `dtype` and `map_size` say how they are stored.
        names: the maps' names of the whole data set, in its order.
        limit: how many of them are wanted, None for all.

    Attributes:
        root: the folder.
        names: the wanted ones.
        missing: those of them that were not there when `find_missing` looked.

    Raises:
        UserError: a class whose pack would take the place of another file.
    """

    def __init__(self, root: Path, settings: dict[str, Any], names: Sequence[str], limit: int | None = None) -> None:
        self.root = root
        self.names = names[:limit]
        self.missing: set[str] = set()
        self._settings = settings
        self._dtype: str = settings["dtype"]
        self._map_size: tuple[int, int] = tuple(settings["map_size"])
        self._packed = settings["format"] == "packed"
        self._unwritten: Counter[str] = Counter()
        self._classes: dict[str, list[str]] = {}
        for name in names:
            self._classes.setdefault(class_of(name), []).append(name)
        if self._packed:
            self._refuse_reserved_classes()

    def open(self) -> int:
        """Starts the folder with its settings, or goes on with one of the same settings.

        What a killed process left half done is removed, and so is every file whose header or length is not that of its
        shape and dtype; it counts as missing then.

        Returns:
            How many of the wanted maps were damaged.

        Raises:
            UserError: maps of other settings, or a folder with something else in it.
        """
        if not (self.root / SETTINGS).is_file():
            self._refuse_other_content()
            self._remove_temporary_files()
            write_json(self.root / SETTINGS, self._settings)
            return 0
        self._refuse_other_settings(read_json(self.root / SETTINGS))
        self._remove_temporary_files()
        damaged = self._remove_damaged_packs() | self._remove_damaged_maps()
        return len(damaged.intersection(self.names) - MapFolder(self.root).names) if damaged else 0

    def find_missing(self) -> None:
        """Looks which maps there are."""
        existing = MapFolder(self.root).names
        self.missing = {name for name in self.names if name not in existing}

    def disk_use(self) -> tuple[int, int]:
        """Returns the bytes that the wanted maps take on the disk, and those that the missing ones need on the way."""
        if not self._packed:
            size = file_size(self._map_size, self._dtype)
            return len(self.names) * size, len(self.missing) * size
        counts, missing = _counts(self.names), _counts(self.missing)
        total = sum(file_size((count, *self._map_size), self._dtype) for count in counts.values())
        # A class's single maps go when its pack is there, and a pack that grows is written anew.
        touched = sum(file_size((counts[name], *self._map_size), self._dtype) for name in missing)
        largest = max(missing.values(), default=0)
        return total, touched + largest * file_size(self._map_size, self._dtype)

    def expect(self, names: Iterable[str]) -> None:
        """Says which maps this process is going to make, so that it knows when a class is complete."""
        self._unwritten = _counts(self.missing.intersection(names))
        for class_name in _counts(self.missing.difference(names)):  # left to `finish`, when all processes are done
            del self._unwritten[class_name]

    def write(self, name: str, saliency: np.ndarray) -> None:
        """Writes one map, (height, width) in [0, 1]."""
        write_map(self.root / name, saliency, self._dtype)

    def completed(self, names: Iterable[str]) -> list[str]:
        """Returns the classes that are complete, and to be packed, now that these maps are written."""
        if not self._packed:
            return []
        written = _counts(names)
        self._unwritten.subtract(written)
        return [name for name in written if self._unwritten[name] == 0]

    def pack(self, class_name: str) -> None:
        """Packs the maps of a class that are there."""
        write_pack(self.root, class_name, self._classes[class_name])

    def finish(self, provenance: dict[str, Any]) -> int:
        """Packs what is not packed yet and writes the manifest; returns how many maps there express no preference."""
        if self._packed:
            for class_name in self._classes.keys() & {class_of(name) for name, _ in single_maps(self.root)}:
                self.pack(class_name)
        # Of all that are there, as an earlier run may have made others.
        maps = MapFolder(self.root)
        names = [name for names in self._classes.values() for name in names if name in maps.names]
        no_preference = decoded(encoded(np.array(NO_PREFERENCE), self._dtype))
        uniform = [name for name in names if (maps.read(name) == no_preference).all()]
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        manifest = {
            "settings": self._settings,
            "num_maps": len(names),
            "uniform_maps": {"count": len(uniform), "names": uniform},
            **provenance,
            "versions": {"python": platform.python_version(), **versions},
        }
        write_json(self.root / MANIFEST, manifest)
        return len(uniform)

    def _refuse_reserved_classes(self) -> None:
        for file in (SETTINGS, MANIFEST):
            if Path(file).stem in self._classes:
                raise UserError(
                    f"the pack of class {Path(file).stem} would overwrite {file}: rename the class's folder"
                )

    def _refuse_other_content(self) -> None:
        if self.root.is_dir() and all(is_temporary(path.name) or path.name == LOCK for path in self.root.iterdir()):
            return
        if self.root.exists():
            raise UserError(f"{self.root} is not empty and has no {SETTINGS} of maps: choose another --output")

    def _refuse_other_settings(self, found: dict[str, Any]) -> None:
        different = [
            f"{key} is {found.get(key)!r} there and {self._settings.get(key)!r} now"
            for key in sorted(found.keys() | self._settings.keys())
            if found.get(key) != self._settings.get(key)
        ]
        if different:
            raise UserError(
                f"{self.root} holds maps of other settings ({'; '.join(different)}): choose another --output"
            )

    def _remove_temporary_files(self) -> None:
        for folder, _, files in os.walk(self.root):
            for file in filter(is_temporary, files):
                os.unlink(os.path.join(folder, file))

    def _remove_damaged_packs(self) -> set[str]:
        lost: set[str] = set()
        packed = set(packed_classes(self.root))
        for class_name, names in self._classes.items():
            pack = Pack(self.root, class_name)
            if not pack.index_path.is_file():
                continue
            try:
                held = set(pack.names)
            except UserError:  # a damaged index does not say which
                held = set(names)
            if class_name in packed and held.issubset(names) and pack.is_whole(self._map_size, self._dtype):
                continue
            lost |= held.intersection(names)
            pack.index_path.unlink()  # first, as without it there is no pack
            pack.path.unlink(missing_ok=True)
        return lost

    def _remove_damaged_maps(self) -> set[str]:
        header, size = file_header(self._map_size, self._dtype), file_size(self._map_size, self._dtype)
        damaged = {
            name: entry.path
            for name, entry in single_maps(self.root)
            if entry.stat().st_size != size or _beginning(entry.path, len(header)) != header
        }
        for name in damaged.keys() & {name for names in self._classes.values() for name in names}:
            os.unlink(damaged[name])
        return set(damaged)


def class_of(name: str) -> str:
    """Returns the class folder of a map or image: `cat/0001.npy` -> `cat`."""
    return name.partition("/")[0]


def _beginning(path: str, length: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(length)


def _counts(names: Iterable[str]) -> Counter[str]:
    return Counter(map(class_of, names))


def check_disk(outputs: Sequence[MapOutput], settings: dict[str, Any]) -> None:
    """Prints what the maps take on the disk.

    Raises:
        UserError: less is free than they need.
    """
    total, needed = (sum(column) for column in zip(*(output.disk_use() for output in outputs), strict=True))
    num_maps = sum(len(output.names) for output in outputs)
    free = shutil.disk_usage(outputs[0].root).free
    height, width = settings["map_size"]
    what = f"{num_maps:,} maps of {width}x{height} {settings['dtype']}: {readable(total)} on disk"
    print(f"{what}, {readable(free)} free")
    if needed > free:
        raise UserError(
            f"{what}, and {readable(needed)} more are needed where {readable(free)} are free: "
            "free some, or choose --dtype uint8 or another --output"
        )


def readable(num_bytes: int) -> str:
    """Returns bytes in units of 1000: 39168000 -> "39 MB"."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
