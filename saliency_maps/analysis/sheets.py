"""Where a bitstream spends: images with their boxes, the teacher's saliency maps and the bits of each position."""

from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from misc.datasets.image_folder import ImageFolder, read_rgb
from misc.evaluation.spending import bits_per_position
from model.split import SplitClassifier
from saliency_maps.analysis.drawing import OVERLAY, in_colour, overlay
from saliency_maps.analysis.objects import Box, boxes_in
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import select_target_layers
from saliency_maps.cam_prep.teacher import Teacher
from saliency_maps.map_folder import relative_image_names

IMAGES, COLUMNS = 12, 2
TILE, SEAM, GAP = 192, 4, 20  # pixels


class Sample(NamedTuple):
    """An image and where its bits go.

    Attributes:
        image: RGB.
        boxes: of its objects, in its pixels.
        saliency: (H, W) in [0, 1], the teacher's map for the image's class.
        bits: (h, w), of each position of the latent.
    """

    image: Image.Image
    boxes: Sequence[Box]
    saliency: np.ndarray
    bits: np.ndarray


def samples_of(student: SplitClassifier, teacher: Teacher, images: ImageFolder, boxes: Path) -> list[Sample]:
    """Returns the first images of as many classes as there is room for.

    The maps are the paper's: XGradCAM of three stages, first principal component, for the image's own class.

    Args:
        student: in eval mode, on the CPU.
        teacher: the whole classifier, of the folder's classes.
        images: with the transform of the test.
        boxes: folder of bounding boxes; images without one are drawn without.
    """
    names = relative_image_names(images.root, (path for path, _ in images.samples))
    boxes_of = boxes_in(boxes, names) if boxes.exists() else {}
    chosen = _first_of_each_class(images)
    x = torch.stack([images[index][0] for index in chosen])
    labels = torch.tensor([images.samples[index][1] for index in chosen])
    layers = select_target_layers(teacher.model, mix_layers=True, image_size=tuple(x.shape[-2:]))
    mapper = SaliencyMapper(teacher.model, layers, "XGradCAM", tuple(x.shape[-2:]), eigen_smooth=True)
    pictures = [read_rgb(images.samples[index][0]) for index in chosen]
    parts = zip(pictures, chosen, mapper(x, labels), bits_per_position(student, x), strict=True)
    return [
        Sample(picture, boxes_of.get(names[index], ()), saliency.nan_to_num(0.5).numpy(), bits.numpy())
        for picture, index, saliency, bits in parts
    ]


def _first_of_each_class(images: ImageFolder) -> list[int]:
    """Returns the images' indices: the first ones of every class in turn, as many as there is room for, by class."""
    by_class: dict[int, list[int]] = {}
    for index, (_, label) in enumerate(images.samples):
        by_class.setdefault(label, []).append(index)
    in_turn = (index for index in chain.from_iterable(zip_longest(*by_class.values())) if index is not None)
    return sorted(islice(in_turn, IMAGES))


def sheet(samples: Sequence[Sample]) -> Image.Image:
    """Draws triples: image with boxes, map and bits over it; the yellow of the bits is the most of any position."""
    least = min(float(sample.bits.min()) for sample in samples)
    most = max(float(sample.bits.max()) for sample in samples)
    triple = 3 * TILE + 2 * SEAM + GAP
    rows = -(-len(samples) // COLUMNS)
    drawing = Image.new("RGB", (COLUMNS * triple + GAP, rows * (TILE + GAP) + GAP), "white")
    for number, sample in enumerate(samples):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * triple, GAP + row * (TILE + GAP)
        picture = sample.image.resize((TILE, TILE), Image.Resampling.BICUBIC)
        tiles = (
            picture.copy(),
            overlay(picture, sample.saliency),
            _blocks(picture, (sample.bits - least) / max(most - least, 1e-9)),
        )
        for place, tile in enumerate(tiles):
            _outline(tile, sample.boxes, sample.image.size)
            drawing.paste(tile, (x + place * (TILE + SEAM), y))
    return drawing


def _blocks(picture: Image.Image, shares: np.ndarray) -> Image.Image:
    """Draws one block of colour for each position over the grey picture."""
    colours = in_colour(shares).resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(picture.convert("L").convert("RGB"), colours, OVERLAY)


def _outline(tile: Image.Image, boxes: Sequence[Box], size: tuple[int, int]) -> None:
    across, down = tile.width / size[0], tile.height / size[1]
    for box in boxes:
        corners = (box.left * across, box.top * down, (box.right + 1) * across - 1, (box.bottom + 1) * down - 1)
        ImageDraw.Draw(tile).rectangle(corners, outline="white", width=2)
