"""Image codecs as reference: what JPEG and WebP need for the accuracy that a student reaches."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from misc.atomic import write_atomically
from misc.errors import UserError
from misc.image_folder import ImageFolder


class Codec(NamedTuple):
    """One of Pillow's lossy formats.

    Attributes:
        name: Pillow's name of the format.
        qualities: ascending; the first gives the smallest files that the encoder writes.
        options: what makes the encoder spend time to save bytes.
    """

    name: str
    qualities: tuple[int, ...]
    options: dict


CODECS = (
    Codec("JPEG", (1, 2, 3, 5, 8, 12, 20, 35, 60, 90), {"subsampling": "4:2:0", "optimize": True}),
    Codec("WebP", (0, 1, 2, 5, 10, 20, 40, 60, 80), {"method": 6}),
)
_REMEDY = "make it with `python scripts/evaluate_codecs.py`"
SETTINGS = tuple((codec, quality) for codec in CODECS for quality in codec.qualities)


class CodecPoint(NamedTuple):
    """A codec at one quality, over a data set: one row of a codec file.

    Attributes:
        codec: its name.
        quality: the encoder's.
        bytes_per_image: mean size of the files, headers included.
        kb_per_image: the same in kB of 1024 bytes.
        bpp: bits per pixel of the classifier's input, as in a student's test.
        top1: of the teacher on the decoded images, percent.
        top5: percent.
        images: how many.
    """

    codec: str
    quality: int
    bytes_per_image: float
    kb_per_image: float
    bpp: float
    top1: float
    top5: float
    images: int


def encode(image: Image.Image, codec: Codec, quality: int) -> bytes:
    """Returns the whole file as Pillow writes it; its headers count, since they travel too."""
    pixels = image.copy()
    pixels.info = {}  # comments and colour profiles of the source would be written again and count as payload
    buffer = io.BytesIO()
    pixels.save(buffer, codec.name, quality=quality, **codec.options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """Returns the RGB image of an encoded file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


class CodedImages(Dataset):
    """An ImageFolder's images after a round trip through every codec and quality.

    An item is (x, label, sizes): x (S, 3, H, W), transformed as the folder transforms its images; sizes (S,), bytes of
    the files; S runs over `SETTINGS`.
    """

    def __init__(self, images: ImageFolder) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        path, label = self.images.samples[index]
        image = self.images.loader(path)
        files = [encode(image, codec, quality) for codec, quality in SETTINGS]
        x = torch.stack([self.images.transform(decode(file)) for file in files])
        return x, label, torch.tensor([len(file) for file in files])


def bytes_for_accuracy(points: Sequence[CodecPoint], top1: float) -> float | None:
    """Returns the fewest bytes per image at which one codec reaches an accuracy; None if it never does.

    Between neighbouring points, top-1 is linear in the logarithm of the bytes. Where a curve falls again, its first
    crossing counts; below its first point, that point's bytes do, as the codec writes nothing smaller.

    Args:
        points: of one codec, in any order.
        top1: the accuracy, percent.
    """
    curve = sorted((point.bytes_per_image, point.top1) for point in points)
    if curve and curve[0][1] >= top1:
        return curve[0][0]
    for (low_bytes, low), (high_bytes, high) in itertools.pairwise(curve):
        if low < top1 <= high:
            share = (top1 - low) / (high - low)
            return math.exp((1 - share) * math.log(low_bytes) + share * math.log(high_bytes))
    return None


def write_points(path: str | Path, points: Sequence[CodecPoint]) -> None:
    """Writes a codec file: CSV, one row per point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CodecPoint._fields)
    writer.writerows([round(value, 6) if isinstance(value, float) else value for value in point] for point in points)
    write_atomically(path, text.getvalue().encode())


def read_points(path: str | Path) -> list[CodecPoint]:
    """Reads a codec file.

    Raises:
        UserError: no such file, or not one that `write_points` wrote.
    """
    types = CodecPoint.__annotations__
    try:
        with open(path, newline="") as file:
            points = [CodecPoint(**{key: types[key](row[key]) for key in types}) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"no codec file at {path}: {_REMEDY}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no codec file ({error!r}): {_REMEDY}") from error
    if not points:
        raise UserError(f"{path} has no rows: {_REMEDY}")
    return points


def by_codec(points: Sequence[CodecPoint]) -> dict[str, list[CodecPoint]]:
    """Returns the points of each codec, in the order in which the codecs first appear."""
    curves: dict[str, list[CodecPoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves
