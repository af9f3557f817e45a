"""One run over a data set: opens the output folder, makes the maps that are not there yet, writes the manifest."""

import importlib.metadata
import platform
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from misc.errors import UserError
from misc.image_folder import ImageFolder
from misc.progress import progress_bar
from saliency_maps.cam_prep.saliency import NO_PREFERENCE, SaliencyMapper, replace_useless
from saliency_maps.map_folder import (
    MANIFEST,
    SETTINGS,
    MapFolder,
    read_json,
    write_json,
    write_map,
)

# A map is flushed to the disk before it counts, which takes milliseconds of waiting and no work.
WRITERS = 8
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def open_map_folder(output: Path, settings: dict[str, Any]) -> None:
    """Starts the folder with its settings, or makes sure that the maps in it were made with the same ones.

    Raises:
        UserError: maps of other settings, or a folder with something else in it.
    """
    if not (output / SETTINGS).is_file():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} is no empty folder and holds no maps: choose another --output")
        write_json(output / SETTINGS, settings)
        return
    found = read_json(output / SETTINGS)
    different = [
        f"{key} is {found.get(key)!r} there and {settings.get(key)!r} now"
        for key in sorted(found.keys() | settings.keys())
        if found.get(key) != settings.get(key)
    ]
    if different:
        raise UserError(f"{output} holds maps of other settings ({'; '.join(different)}): choose another --output")


def make_maps(
    mapper: SaliencyMapper,
    images: ImageFolder,
    names: Sequence[str],
    indices: Sequence[int],
    output: Path,
    device: torch.device,
    batch_size: int,
    num_workers: int,
) -> None:
    """Makes and writes the maps of some images.

    Args:
        mapper: its model is on `device`.
        images: items are (preprocessed image, label).
        names: the map's name of each image.
        indices: which images.
        output: the folder of maps.
        device: where the maps are computed.
        batch_size: images per step.
        num_workers: processes that read images.
    """
    pin_memory = device.type == "cuda"
    loader = DataLoader(Subset(images, indices), batch_size, num_workers=num_workers, pin_memory=pin_memory)
    remaining, writes = iter(indices), iter(())
    with progress_bar(description="saliency maps", total=len(indices)) as progress, ThreadPoolExecutor(WRITERS) as pool:
        for batch, labels in loader:
            maps = mapper(batch.to(device, non_blocking=True), labels.to(device, non_blocking=True))
            maps = replace_useless(maps).cpu().numpy()
            paths = [output / names[index] for index in islice(remaining, len(maps))]
            deque(writes, maxlen=0)  # the batch before: written by now, or its error is raised here
            writes = pool.map(write_map, paths, maps)
            progress.update(len(batch))
        deque(writes, maxlen=0)


def uniform_maps(names: Sequence[str], output: Path) -> list[str]:
    """Returns the names of those maps that express no preference; reading them needs no record of earlier runs."""
    maps = MapFolder(output)
    return [name for name in names if (maps.read(name) == NO_PREFERENCE).all()]


def write_manifest(output: Path, settings: dict[str, Any], provenance: dict[str, Any], names: Sequence[str]) -> int:
    """Writes what the maps depend on, where they come from and which express no preference; returns their number."""
    uniform = uniform_maps(names, output)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    manifest = {
        "settings": settings,
        "num_maps": len(names),
        "uniform_maps": {"count": len(uniform), "names": uniform},
        **provenance,
        "versions": {"python": platform.python_version(), **versions},
    }
    write_json(output / MANIFEST, manifest)
    return len(uniform)
