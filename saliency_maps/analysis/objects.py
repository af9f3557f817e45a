"""Ground truth for saliency maps: masks of objects, or bounding boxes from Tiny ImageNet's files."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from misc.datasets.image_folder import read_rgb
from misc.errors import UserError, nearest

VAL_BOXES = "val_annotations.txt"
TRAIN_BOXES = "_boxes.txt"


class Box(NamedTuple):
    """A bounding box in pixels from the top left corner of the image; all four bounds are inside the box."""

    left: int
    top: int
    right: int
    bottom: int


def read_mask(path: Path) -> np.ndarray:
    """Return a mask (H, W) bool: true where the file is brighter than half.

    Raises:
        UserError: a truncated or unreadable file, or one without an object.
    """
    mask = np.asarray(read_rgb(path).convert("L")) > 127
    if not mask.any():
        raise UserError(f"{path} shows no object: expected a mask with pixels brighter than half, or no file")
    return mask


def masks_in(root: Path, image_names: Sequence[str]) -> dict[str, Path]:
    """Return the path of each image's mask by the image's name (`cat/0001.jpg`: `cat/0001.png`), where there is one.

    Raises:
        UserError: no such folder, or none of the images has a mask.
    """
    if not root.is_dir():
        raise UserError(f"no masks at {root.absolute()}: expected a folder with a PNG per image, CLASS/IMAGE.png")
    expected = {name: f"{os.path.splitext(name)[0]}.png" for name in image_names}
    found = {name: root / mask for name, mask in expected.items() if (root / mask).is_file()}
    if not found:
        there = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png")))
        first = expected[image_names[0]]
        raise UserError(
            f"none of {len(image_names)} images has a mask in {root}: expected {first}{nearest(first, there)}"
        )
    return found


def boxes_in(path: Path, image_names: Sequence[str]) -> dict[str, list[Box]]:
    """Return each image's boxes by the image's name (`cat/0001.jpg`), where its file name (`0001.jpg`) has any.

    Args:
        path: see `read_boxes`.
        image_names: relative to the data set.

    Raises:
        UserError: see `read_boxes`; boxes for none of the images; or two images that would share boxes.
    """
    boxes = read_boxes(path)
    owners: dict[str, str] = {}
    for image in image_names:
        file = image.rpartition("/")[2]
        if file in boxes and file in owners:
            raise UserError(
                f"{path} has boxes of {file}, which may be {owners[file]} or {image}: rename one of the images"
            )
        owners[file] = image
    found = {image: boxes[file] for file, image in owners.items() if file in boxes}
    if not found:
        first = next(iter(owners))
        raise UserError(
            f"none of {len(image_names)} images has a box in {path}: expected {first}{nearest(first, boxes)}"
        )
    return found


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Read boxes by the image's file name, from one file or from all box files below a folder.

    A `val_annotations.txt` has lines of file name, class and corners, a `<class>_boxes.txt` of file name and corners,
    separated by tabs; several lines with the same name are several objects.

    Raises:
        UserError: no such file, a line that is no box, or one image with boxes in two files.
    """
    if not path.exists():
        raise UserError(
            f"no boxes at {path.absolute()}: expected {VAL_BOXES}, <class>{TRAIN_BOXES} or a folder of these"
        )
    boxes: dict[str, list[Box]] = {}
    origins: dict[str, Path] = {}
    for file in _box_files(path) if path.is_dir() else [path]:
        for name, box in _boxes_of(file):
            if origins.setdefault(name, file) != file:
                raise UserError(f"{name} has boxes in {origins[name]} and in {file}: give one of them")
            boxes.setdefault(name, []).append(box)
    return boxes


def _box_files(root: Path) -> list[Path]:
    paths = (Path(folder, file) for folder, _, files in os.walk(root, followlinks=True) for file in files)
    found = sorted(path for path in paths if path.name == VAL_BOXES or path.name.endswith(TRAIN_BOXES))
    if not found:
        raise UserError(f"no boxes below {root}: expected {VAL_BOXES} or <class>{TRAIN_BOXES}")
    return found


def _boxes_of(path: Path) -> Iterator[tuple[str, Box]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no file of boxes ({error}): give {VAL_BOXES} or <class>{TRAIN_BOXES}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parse(line, f"{path}, line {number}")


def _parse(line: str, where: str) -> tuple[str, Box]:
    name, *fields = line.rstrip().split("\t")
    try:
        box = Box(*map(int, fields[-4:]))
    except (TypeError, ValueError):
        box = None
    if box is None or len(fields) > 5:
        raise UserError(f"{where} is {line[:80]!r}: expected file name, class (if any), x0, y0, x1, y1 between tabs")
    if not (0 <= box.left <= box.right and 0 <= box.top <= box.bottom):
        raise UserError(
            f"{where} has the box {shown(box)}: expected x0, y0, x1, y1 with 0 <= x0 <= x1 and 0 <= y0 <= y1"
        )
    return name, box


def mask_of_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Return a boolean mask of `size` (height, width), true inside any of the boxes.

    Raises:
        UserError: a box that goes beyond the image.
    """
    mask = np.zeros(size, bool)
    for box in boxes:
        if box.right >= size[1] or box.bottom >= size[0]:
            raise UserError(
                f"the box {shown(box)} goes beyond an image of {size[1]} x {size[0]}: give the boxes' own images"
            )
        mask[box.top : box.bottom + 1, box.left : box.right + 1] = True
    return mask


def shown(box: Box) -> str:
    return " ".join(map(str, box))


def masks_of(root: Path, names: Sequence[str]) -> Mapping[str, Callable[[], np.ndarray]]:
    """Return, for each image that has a mask, a function that reads it as (H, W) bool."""
    return {name: partial(read_mask, path) for name, path in masks_in(root, names).items()}


def box_masks_of(path: Path, names: Sequence[str], images: Path) -> Mapping[str, Callable[[], np.ndarray]]:
    """Return, for each image that has boxes, a function that draws them as an (H, W) bool mask of the image's size."""
    return {name: partial(box_mask, images / name, boxes) for name, boxes in boxes_in(path, names).items()}


def box_mask(image: Path, boxes: Sequence[Box]) -> np.ndarray:
    """Return a boolean mask of the image's size, true inside the boxes."""
    with Image.open(image) as opened:
        width, height = opened.size
    try:
        return mask_of_boxes(boxes, (height, width))
    except UserError as error:
        raise UserError(f"{image}: {error}") from None
