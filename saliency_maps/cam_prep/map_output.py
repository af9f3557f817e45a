"""The folder of maps that a run fills: its settings, repair, writing, packing by class and manifest."""

import importlib.metadata
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from misc.files import is_temporary, locked
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
PACKAGES = ("torch", "torchvision", "timm", "grad-cam", "numpy", "pillow")


class MapOutput:
    """One folder of maps, the maps requested in it and those it lacks.

    Args:
        root: the folder; made by `open`.
        settings: all that the maps depend on; `format`, `dtype` and `map_size` say how they are stored.
        names: the maps' names of the whole data set, in its order.
        limit: how many of them are requested, None for all.

    Attributes:
        root, dtype, map_size: the folder, the type of the stored values and the (height, width) of each map.
        names: the requested maps.
        missing: those of them that `find_missing` did not find.

    Raises:
        UserError: a class whose pack would overwrite another file.
    """

    def __init__(self, root: Path, settings: dict[str, Any], names: Sequence[str], limit: int | None = None) -> None:
        self.root = root
        self.names = names[:limit]
        self.missing: set[str] = set()
        self._settings = settings
        self.dtype: str = settings["dtype"]
        self.map_size: tuple[int, int] = tuple(settings["map_size"])
        self._packed = settings["format"] == "packed"
        self._unwritten: Counter[str] = Counter()
        self._classes: dict[str, list[str]] = {}
        for name in names:
            self._classes.setdefault(class_of(name), []).append(name)
        if self._packed:
            self._refuse_reserved_classes()

    def open(self) -> int:
        """Create the folder, or resume one of the same settings.

        Temporary files of a killed process are removed, and so is every map or pack whose header or length does not
        fit its shape and dtype; those maps then count as missing.

        Returns:
            How many of the requested maps were damaged.

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
        """List the requested maps that do not exist yet."""
        existing = MapFolder(self.root).names
        self.missing = {name for name in self.names if name not in existing}

    def disk_use(self) -> tuple[int, int]:
        """Return the bytes of all requested maps on disk, and the peak of what making the missing ones takes."""
        if not self._packed:
            size = file_size(self.map_size, self.dtype)
            return len(self.names) * size, len(self.missing) * size
        counts, missing = _counts(self.names), _counts(self.missing)
        total = sum(file_size((count, *self.map_size), self.dtype) for count in counts.values())
        # Single maps are deleted once their class is packed, and a pack that grows is rewritten as a whole.
        touched = sum(file_size((counts[name], *self.map_size), self.dtype) for name in missing)
        largest = max(missing.values(), default=0)
        return total, touched + largest * file_size(self.map_size, self.dtype)

    def expect(self, names: Iterable[str]) -> None:
        """Announce the maps that this process will make, so that it knows when a class is complete."""
        self._unwritten = _counts(self.missing.intersection(names))
        for class_name in _counts(self.missing.difference(names)):  # shared with other processes: packed by `finish`
            del self._unwritten[class_name]

    def write(self, name: str, saliency: np.ndarray) -> None:
        """Write one map, (height, width) in [0, 1]."""
        write_map(self.root / name, saliency, self.dtype)

    def completed(self, names: Iterable[str]) -> list[str]:
        """Record these maps as written; return the classes that they complete, which are to be packed."""
        if not self._packed:
            return []
        written = _counts(names)
        self._unwritten.subtract(written)
        return [name for name in written if self._unwritten[name] == 0]

    def pack(self, class_name: str) -> None:
        """Pack the existing maps of a class."""
        write_pack(self.root, class_name, self._classes[class_name])

    def finish(self, provenance: dict[str, Any]) -> int:
        """Pack what is not packed yet and write the manifest; return how many maps express no preference."""
        if self._packed:
            for class_name in self._classes.keys() & {class_of(name) for name, _ in single_maps(self.root)}:
                self.pack(class_name)
        # Of all maps in the folder, as an earlier run may have made others.
        maps = MapFolder(self.root)
        names = [name for names in self._classes.values() for name in names if name in maps.names]
        no_preference = decoded(encoded(np.array(NO_PREFERENCE), self.dtype))
        uniform = [name for name in names if (maps.read(name) == no_preference).all()]
        versions = {package: _version(package) for package in PACKAGES}
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
            except UserError:  # a damaged index names none
                held = set(names)
            if class_name in packed and held.issubset(names) and pack.is_whole(self.map_size, self.dtype):
                continue
            lost |= held.intersection(names)
            pack.index_path.unlink()  # first: without an index there is no pack
            pack.path.unlink(missing_ok=True)
        return lost

    def _remove_damaged_maps(self) -> set[str]:
        header, size = file_header(self.map_size, self.dtype), file_size(self.map_size, self.dtype)
        damaged = {
            name: entry.path
            for name, entry in single_maps(self.root)
            if entry.stat().st_size != size or _beginning(entry.path, len(header)) != header
        }
        for name in damaged.keys() & {name for names in self._classes.values() for name in names}:
            os.unlink(damaged[name])
        return set(damaged)


def class_of(name: str) -> str:
    """Return the class folder of a map or image: `cat/0001.npy` -> `cat`."""
    return name.partition("/")[0]


def _beginning(path: str, length: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(length)


def _counts(names: Iterable[str]) -> Counter[str]:
    return Counter(map(class_of, names))


def map_outputs(root: Path, settings: dict[str, Any], names: Sequence[str], limit: int | None) -> list[MapOutput]:
    """Return the folder of maps, or with the setting `multires` one folder per layer, each complete in itself.

    Raises:
        UserError: folders of layers would join the maps in `root`.
    """
    if not settings["multires"]:
        return [MapOutput(root, settings, names, limit)]
    if (root / SETTINGS).exists():
        raise UserError(f"{root} holds maps, and with --multires it would hold folders: choose another --output")
    return [MapOutput(root / layer, {**settings, "layers": [layer]}, names, limit) for layer in settings["layers"]]


@contextmanager
def opened(root: Path, outputs: Sequence[MapOutput], ranks: Ranks) -> Iterator[int]:
    """Open the outputs on the first rank, under a lock that lasts as long as the context; find what is missing on all.

    Args:
        root: the folder that holds the outputs.
        outputs: the folders of maps.
        ranks: the processes that share the work.

    Yields:
        How many of the requested maps were damaged; 0 on all ranks but the first.

    Raises:
        UserError: another run holds the lock, see `MapOutput.open`, or see `check_disk`.
    """
    busy = f"another run is making the maps in {root}: wait for it or choose another --output"
    with locked(root / LOCK, busy) if ranks.first else nullcontext():
        num_damaged = sum(output.open() for output in outputs) if ranks.first else 0
        ranks.wait()
        for output in outputs:
            output.find_missing()
        if ranks.first:
            check_disk(outputs)
        ranks.wait()
        yield num_damaged


def check_disk(outputs: Sequence[MapOutput]) -> None:
    """Print how much disk space the maps take and how much is free.

    Raises:
        UserError: there is not enough free space.
    """
    total, needed = (sum(column) for column in zip(*(output.disk_use() for output in outputs), strict=True))
    num_maps = sum(len(output.names) for output in outputs)
    free = shutil.disk_usage(outputs[0].root).free
    height, width = outputs[0].map_size
    what = f"{num_maps:,} maps of {width}x{height} {outputs[0].dtype}: {readable(total)} on disk"
    print(f"{what}, {readable(free)} free")
    if needed > free:
        raise UserError(
            f"{what}, and {readable(needed)} more are needed where {readable(free)} are free: "
            "free some, or choose --dtype uint8 or another --output"
        )


def readable(num_bytes: int) -> str:
    """Return a number of bytes in units of 1000: 39168000 -> "39 MB"."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # most methods run without grad-cam
        return None
