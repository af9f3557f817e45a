"""Sheet of images beside their saliency maps, on which the object is outlined."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from misc.datasets.image_folder import read_rgb
from saliency_maps.analysis.drawing import overlay
from saliency_maps.analysis.objects import read_mask
from saliency_maps.analysis.sheets import first_of_each_class, grid, side_by_side
from saliency_maps.map_folder import MapFolder

IMAGES, COLUMNS = 24, 4
TILE, GAP = 192, 24  # pixels


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
    """Draw pairs, the image and its map with the object's outline, for the first images of every class."""
    chosen = first_of_each_class(((sample.label, sample) for sample in samples), IMAGES)
    return grid([_pair(sample, maps.read(sample.saliency)) for sample in chosen], COLUMNS, GAP)


def _pair(sample: Sample, saliency: np.ndarray) -> Image.Image:
    image = read_rgb(sample.image).resize((TILE, TILE), Image.Resampling.BICUBIC)
    drawing = overlay(image, saliency)
    drawing.paste("white", mask=outline(sample.mask))
    return side_by_side([image, drawing])


def outline(path: Path) -> Image.Image:
    """Return the opacity, (TILE, TILE), of a smooth line around a mask, drawn at twice the size as antialiasing."""
    mask = Image.fromarray(read_mask(path)).convert("L").filter(ImageFilter.GaussianBlur(0.8))
    mask = mask.resize((2 * TILE, 2 * TILE), Image.Resampling.BICUBIC).point(lambda value: 255 * (value > 127))
    ring = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(7)), mask)
    return ring.resize((TILE, TILE), Image.Resampling.BOX)
