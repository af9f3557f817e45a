"""A contact sheet of saliency maps with the outlines of annotated objects."""

import math
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from misc.datasets.image_folder import read_rgb
from saliency_maps.analysis.drawing import overlay
from saliency_maps.analysis.objects import read_mask
from saliency_maps.map_folder import MapFolder

IMAGES, COLUMNS = 24, 4
TILE, GAP, SEAM = 192, 24, 4  # pixels


class Sample(NamedTuple):
    """An image, the name of its saliency map, and its object's mask.

    Attributes:
        label: class index.
        image: path of the image.
        saliency: name of the map in its folder.
        mask: path of the mask.
    """

    label: int
    image: Path
    saliency: str
    mask: Path


def outlined_sheet(samples: Sequence[Sample], maps: MapFolder) -> Image.Image:
    """Draw pairs of an image and its outlined map: the first images of each class, sorted by class."""
    chosen = _first_of_each_class(samples)
    num_rows = math.ceil(len(chosen) / COLUMNS)
    pair = TILE + SEAM + TILE + GAP
    sheet = Image.new("RGB", (COLUMNS * pair + GAP, num_rows * (TILE + GAP) + GAP), "white")
    for number, sample in enumerate(chosen):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * pair, GAP + row * (TILE + GAP)
        image = read_rgb(sample.image).resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(image, (x, y))
        sheet.paste(outlined_overlay(image, maps.read(sample.saliency), sample.mask), (x + TILE + SEAM, y))
    return sheet


def _first_of_each_class(samples: Sequence[Sample]) -> list[Sample]:
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    in_turn = (sample for sample in chain.from_iterable(zip_longest(*by_class.values())) if sample is not None)
    return sorted(islice(in_turn, IMAGES), key=lambda sample: sample.label)


def outlined_overlay(image: Image.Image, saliency: np.ndarray, mask: Path) -> Image.Image:
    """Draw a map (h, w) in colour over the grey image (TILE, TILE), and the mask's outline in white."""
    drawing = overlay(image, saliency)
    drawing.paste("white", mask=outline(mask))
    return drawing


def outline(path: Path) -> Image.Image:
    """Return the opacity (TILE, TILE) of a smooth line around a mask, antialiased by drawing it at twice the size."""
    mask = Image.fromarray(read_mask(path)).convert("L").filter(ImageFilter.GaussianBlur(0.8))
    mask = mask.resize((2 * TILE, 2 * TILE), Image.Resampling.BICUBIC).point(lambda value: 255 * (value > 127))
    ring = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(7)), mask)
    return ring.resize((TILE, TILE), Image.Resampling.BOX)
