"""Photographs without labels, gathered from folders of any kind, for head distillation."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from misc.datasets.image_folder import read_rgb
from misc.datasets.prepared import make_data_set
from misc.errors import UserError, first_few
from misc.progress import progress_bar

LEAST_SIDE = 200
VAL_OF_IMAGENET = re.compile(r"ILSVRC2012_val_\d+")


def write_photographs(sources: Sequence[Path], val: Path, root: Path, at_most: int | None = None) -> dict[str, Any]:
    """Write train/<source>/..., val/<class>/... and manifest.json.

    Of each source, every image is kept that can be read and whose shorter side has 200 pixels or more. ImageNet's
    validation images, which public copies of its classes mix with training images, are left out by their names.

    Args:
        sources: folders with images at any depth.
        val: folder of class folders, copied as it is.
        root: folder to write to, which appears when complete.
        at_most: if the sources together hold more images, so many are drawn at random, always the same.

    Returns:
        The manifest: for each source how many images were kept, not drawn, small, unreadable or of ImageNet's
        validation set.

    Raises:
        UserError: a folder that is missing or without an image to use, a source that holds `val` or `root` or lies in
            `val`, two sources of one name, or `root` holds something else.
    """
    for folder in (*sources, val):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: expected one with images")
    sources, val = sorted(source.resolve() for source in sources), val.resolve()
    for source in sources:
        if val.is_relative_to(source):
            raise UserError(f"the validation images in {val} lie in {source}, whose images would be trained on")
        if source.is_relative_to(val):
            raise UserError(f"{source} is a part of the validation images in {val}, and would be trained on")
        if root.resolve().is_relative_to(source):
            raise UserError(f"{root} lies in {source}, whose images are copied to it: name a folder elsewhere")
    if doubled := [name for name, times in Counter(source.name for source in sources).items() if times > 1]:
        raise UserError(f"several folders are called {first_few(doubled)}: each is named after its last part")
    num_val = sum(path.suffix.lower() in IMG_EXTENSIONS for path in val.rglob("*"))
    if not num_val:
        raise UserError(f"no validation image in {val}: expected a folder of images per class")
    wanted = {"train": [*map(str, sources)], "val": str(val), "at_most": at_most}

    def write(folder: Path) -> dict[str, Any]:
        kinds = {(source, path): kind for source in sources for path, kind in _kinds(source)}
        good = [image for image, kind in kinds.items() if kind == "kept"]
        if at_most is not None and at_most < len(good):
            drawn = set(random.Random(0).sample(good, at_most))
            kinds |= {image: "not drawn" for image in good if image not in drawn}
        counts: dict[str, dict[str, int]] = {source.name: {"kept": 0} for source in sources}
        for (source, _), kind in kinds.items():
            counts[source.name][kind] = counts[source.name].get(kind, 0) + 1
        if not good:
            shutil.rmtree(folder)  # nothing to go on from
            raise UserError(f"no image to train on in {first_few(sources)}: found {_found(counts)}")
        for (source, path), kind in kinds.items():
            if kind == "kept":
                _copy(path, folder / "train" / source.name / path.relative_to(source))
        shutil.copytree(val, folder / "val", dirs_exist_ok=True)
        return {"sources": counts, "num_train": sum(each["kept"] for each in counts.values()), "num_val": num_val}

    return make_data_set(root, {"data_set": "photographs", **wanted}, write)


def _found(counts: dict[str, dict[str, int]]) -> str:
    """Return how many images are of which kind, over all sources."""
    totals: Counter[str] = sum(map(Counter, counts.values()), Counter())
    return ", ".join(f"{count:,} {kind}" for kind, count in totals.items()) or "none"


def _kinds(source: Path) -> list[tuple[Path, str]]:
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
    with ThreadPoolExecutor() as pool:
        return list(zip(paths, progress_bar(pool.map(_kind, paths), source.name, len(paths)), strict=True))


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


def _kind(path: Path) -> str:
    if VAL_OF_IMAGENET.match(path.name):
        return "of ImageNet's validation set"
    try:
        return "kept" if min(read_rgb(path).size) >= LEAST_SIDE else "small"
    except UserError:
        return "unreadable"
