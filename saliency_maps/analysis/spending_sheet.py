"""Sheet of a student's images: boxes, saliency maps, the bits of each position, bytes and classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision import tv_tensors
from torchvision.transforms import v2

from misc.datasets.image_folder import ImageFolder, read_rgb
from misc.evaluation.spending import bits_per_position
from model.split import SplitClassifier
from saliency_maps.analysis.drawing import OVERLAY, in_colour, overlay
from saliency_maps.analysis.objects import Box, boxes_in
from saliency_maps.analysis.sheets import first_of_each_class, grid, side_by_side
from saliency_maps.analysis.text import LINE, write
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import select_target_layers
from saliency_maps.cam_prep.teacher import Teacher
from saliency_maps.map_folder import relative_image_names

IMAGES, COLUMNS = 12, 2
TILE, GAP = 192, 20  # pixels


class Sample(NamedTuple):
    """An image, its saliency map, its bit allocation, and the student's answer.

    Attributes:
        label: name of the image's class.
        mistaken_for: name of the class that the student finds, if it is another one.
        num_bytes: everything sent.
        image: RGB, what the network sees of it.
        boxes: bounding boxes of its objects, in its pixels.
        saliency: (H, W) in [0, 1], the teacher's map for the image's class.
        bits: (h, w), bits of each position of the latent.
    """

    label: str
    mistaken_for: str | None
    num_bytes: int
    image: Image.Image
    boxes: Sequence[Box]
    saliency: np.ndarray
    bits: np.ndarray


def samples_of(
    student: SplitClassifier,
    teacher: Teacher,
    images: ImageFolder,
    names: Sequence[str],
    boxes: Path,
    level: int | None = None,
) -> list[Sample]:
    """Return the samples of the first images of every class, `IMAGES` in all.

    The maps are the paper's: XGradCAM of three stages, first principal component, for the image's own class.

    Args:
        student: in eval mode, on the CPU, with the coder's tables.
        teacher: the uncut classifier of the folder's classes.
        images: the test images, with the transform of the test, of `torchvision.transforms.v2`.
        names: of the classes, by their indices.
        boxes: folder of bounding boxes; it may be absent, and so may those of an image.
        level: of a student of variable rate; None is its middle one.
    """
    files = relative_image_names(images.root, (path for path, _ in images.samples))
    boxes_of = boxes_in(boxes, files) if boxes.exists() else {}
    chosen = first_of_each_class(((label, index) for index, (_, label) in enumerate(images.samples)), IMAGES)
    x = torch.stack([images[index][0] for index in chosen])
    labels = torch.tensor([images.samples[index][1] for index in chosen])
    layers = select_target_layers(teacher.model, mix_layers=True, image_size=tuple(x.shape[-2:]))
    mapper = SaliencyMapper(teacher.model, layers, "XGradCAM", tuple(x.shape[-2:]), eigen_smooth=True)
    with torch.inference_mode():
        streams = student.encode(x, level)
        found = student.decode(streams).argmax(1)
    pictures = [(read_rgb(images.samples[index][0]), boxes_of.get(files[index], ())) for index in chosen]
    seen = [in_view(images.transform, picture, its_boxes) for picture, its_boxes in pictures]
    return [
        Sample(
            label=names[label],
            mistaken_for=None if prediction == label else names[prediction],
            num_bytes=len(stream),
            image=picture,
            boxes=visible_boxes,
            saliency=saliency.nan_to_num(0.5).numpy(),
            bits=bits.numpy(),
        )
        for (picture, visible_boxes), label, prediction, stream, saliency, bits in zip(
            seen, labels, found, streams, mapper(x, labels), bits_per_position(student, x, level), strict=True
        )
    ]


def in_view(transform: v2.Compose, image: Image.Image, boxes: Sequence[Box]) -> tuple[Image.Image, list[Box]]:
    """Return the part of an image that a test's transform keeps, and the boxes that lie in it, in its pixels."""
    geometry = [step for step in transform.transforms if isinstance(step, v2.Resize | v2.CenterCrop)]
    corners = torch.tensor([(box.left, box.top, box.right + 1, box.bottom + 1) for box in boxes]).reshape(-1, 4)
    bounds = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=image.size[::-1])
    for step in geometry:
        image, bounds = step(image, bounds)
    moved = [Box(left, top, right - 1, bottom - 1) for left, top, right, bottom in bounds.tolist()]
    return image, [box for box in moved if box.left <= box.right and box.top <= box.bottom]


def sheet(samples: Sequence[Sample]) -> Image.Image:
    """Draw triples under their class and bytes: image with boxes, map, bits. Yellow is the most bits on the sheet."""
    least = min(float(sample.bits.min()) for sample in samples)
    most = max(float(sample.bits.max()) for sample in samples)
    return grid([_triple(sample, least, most) for sample in samples], COLUMNS, GAP)


def caption(sample: Sample) -> tuple[str, str]:
    """Return the image's class, and what the student makes of it."""
    answer = f", taken for {sample.mistaken_for}" if sample.mistaken_for else ""
    return sample.label, f"{answer} · {sample.num_bytes:,} bytes"


def _triple(sample: Sample, least: float, most: float) -> Image.Image:
    picture = sample.image.resize((TILE, TILE), Image.Resampling.BICUBIC)
    shares = (sample.bits - least) / max(most - least, 1e-9)
    tiles = [picture.copy(), overlay(picture, sample.saliency), _blocks(picture, shares)]
    for tile in tiles:
        _outline(tile, sample.boxes, sample.image.size)
    triple = side_by_side(tiles)
    drawing = Image.new("RGB", (triple.width, LINE + triple.height), "white")
    write(drawing, (0, 0), *caption(sample))
    drawing.paste(triple, (0, LINE))
    return drawing


def _blocks(picture: Image.Image, shares: np.ndarray) -> Image.Image:
    """Draw one block of colour for each position over the grey picture."""
    colours = in_colour(shares).resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(picture.convert("L").convert("RGB"), colours, OVERLAY)


def _outline(tile: Image.Image, boxes: Sequence[Box], size: tuple[int, int]) -> None:
    across, down = tile.width / size[0], tile.height / size[1]
    for box in boxes:
        corners = (box.left * across, box.top * down, (box.right + 1) * across - 1, (box.bottom + 1) * down - 1)
        ImageDraw.Draw(tile).rectangle(corners, outline="white", width=2)
