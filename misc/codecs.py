"""Image codecs as reference: Pillow's lossy formats and CompressAI's pretrained models, each at several qualities.

A codec that is not to be had, since Pillow was built without it or its weights cannot be loaded, is left out with a
line that says so. What a codec costs at each quality, and what a classifier makes of it, are the points of its curve.
"""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL
import torch
from compressai.models import CompressionModel
from compressai.ops import compute_padding
from compressai.zoo import image_models
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype, to_pil_image

from misc.atomic import write_atomically
from misc.errors import UserError, did_you_mean
from misc.image_folder import ImageFolder
from misc.rate_accuracy import Point, bytes_at, frontier

_REMEDY = "make it with `python scripts/evaluate_codecs.py`"
_TEACHERS_MARGIN = 0.2  # points of top-1


class Stream(NamedTuple):
    """An image as its codec stores it, and what of that counts, in bytes."""

    num_bytes: int
    content: object


class Coded(NamedTuple):
    """What an RGB image costs, in bytes, and what is left of it."""

    num_bytes: int
    image: Image.Image


class Setting(NamedTuple):
    """A codec at one quality."""

    codec: str
    quality: int
    encode: Callable[[Image.Image], Stream]
    decode: Callable[[object], Image.Image]

    def round_trip(self, image: Image.Image) -> Coded:
        """Encodes an RGB image and decodes it."""
        stream = self.encode(image)
        return Coded(stream.num_bytes, self.decode(stream.content))


class UnavailableError(Exception):
    """A codec that cannot be used here, and why."""


def pillow_format(name: str, qualities: Sequence[int], **options: object) -> list[Setting]:
    """Returns the settings of one of Pillow's formats; `options` are those of its `Image.save`."""
    Image.init()
    if name.upper() not in Image.SAVE:
        raise UnavailableError(f"Pillow {PIL.__version__} was built without it; 11.3 and later have it")
    return [
        Setting(name, quality, partial(to_file, name, {"quality": quality, **options}), from_file)
        for quality in qualities
    ]


def compressai_model(name: str, qualities: Sequence[int]) -> list[Setting]:
    """Returns the settings of one of CompressAI's models with its pretrained weights, trained for MSE."""
    try:
        models = [image_models[name](quality, pretrained=True, progress=False).eval() for quality in qualities]
    except (OSError, RuntimeError) as error:
        raise UnavailableError(f"its weights cannot be loaded ({error})") from error
    for model in models:
        model.update()
    return [
        Setting(name, quality, partial(to_strings, model), partial(from_strings, model))
        for quality, model in zip(qualities, models, strict=True)
    ]


# The first quality of a format is the least that its encoder has. 75 is that of Tiny ImageNet's files:
# at none other does JPEG write them again with next to no loss.
JPEG_QUALITIES = (1, 2, 3, 5, 8, 12, 20, 35, 60, 75, 90, 97)
CODECS: dict[str, Callable[[], list[Setting]]] = {
    "JPEG": partial(pillow_format, "JPEG", JPEG_QUALITIES, subsampling="4:2:0", optimize=True),
    "WebP": partial(pillow_format, "WebP", (0, 1, 2, 5, 10, 20, 40, 60, 80, 93), method=6),
    # A slower speed than Pillow's takes ten times as long; it saves nothing at 64 x 64 and 3 % at 256 x 171.
    "AVIF": partial(pillow_format, "AVIF", (0, 5, 10, 20, 30, 40, 50, 60, 75, 90, 97), max_threads=1),
    "bmshj2018-factorized": partial(compressai_model, "bmshj2018-factorized", (1, 2, 3, 4, 6, 8)),
    "mbt2018-mean": partial(compressai_model, "mbt2018-mean", (1, 2, 3, 4, 6, 8)),
    "cheng2020-anchor": partial(compressai_model, "cheng2020-anchor", (1, 3, 5)),
}


def available_settings(names: Sequence[str]) -> list[Setting]:
    """Returns all qualities of the named codecs; prints a line for each codec that cannot be used here.

    Raises:
        UserError: no such codec, or none of them can be used.
    """
    settings = []
    for name in names:
        if name not in CODECS:
            raise UserError(f"no codec '{name}'{did_you_mean(name, CODECS)}")
        try:
            settings += CODECS[name]()
        except UnavailableError as error:
            print(f"{name} is skipped: {error}", flush=True)
    if not settings:
        raise UserError(f"none of the codecs can be used here: {', '.join(names)}")
    return settings


def to_file(name: str, options: dict[str, object], image: Image.Image) -> Stream:
    """Codes an image as a file of one of Pillow's formats; the whole file counts, since its headers travel too."""
    pixels = image.copy()
    pixels.info = {}  # comments and colour profiles of the source would be written again and count as payload
    file = io.BytesIO()
    pixels.save(file, name, **options)
    return Stream(file.tell(), file.getvalue())


def from_file(content: bytes) -> Image.Image:
    """Decodes a file of one of Pillow's formats as RGB."""
    return Image.open(io.BytesIO(content)).convert("RGB")


@torch.inference_mode()
def to_strings(model: CompressionModel, image: Image.Image) -> Stream:
    """Codes an image with one of CompressAI's models; its strings count, and no header, as it has no file format.

    Args:
        model: takes images (B, 3, H, W) in [0, 1], H and W multiples of its downsampling factor, to which the image is
            padded with its own edge; what is decoded is cropped again.
        image: RGB.
    """
    margins, crop = compute_padding(image.height, image.width, min_div=model.downsampling_factor)
    x = pil_to_tensor(image)[None] / 255
    coded = model.compress(pad(x, margins, mode="replicate"))
    num_bytes = sum(len(string) for strings in coded["strings"] for string in strings)
    return Stream(num_bytes, (coded, crop))


@torch.inference_mode()
def from_strings(model: CompressionModel, content: tuple[dict, tuple[int, ...]]) -> Image.Image:
    """Decodes what `to_strings` made with the same model."""
    coded, crop = content
    x_hat = pad(model.decompress(**coded)["x_hat"], crop)[0].clamp(0, 1)
    return to_pil_image(to_dtype(x_hat, torch.uint8, scale=True))


class CodedImages(Dataset):
    """An ImageFolder's images after a round trip through every setting.

    An item is (x, label, sizes): x (S, 3, H, W), transformed as the folder transforms its images; sizes (S,), what they
    cost in bytes; S runs over the settings.
    """

    def __init__(self, images: ImageFolder, settings: Sequence[Setting]) -> None:
        self.images = images
        self.settings = settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        path, label = self.images.samples[index]
        image = self.images.loader(path)
        coded = [setting.round_trip(image) for setting in self.settings]
        x = torch.stack([self.images.transform(one.image) for one in coded])
        return x, label, torch.tensor([one.num_bytes for one in coded])


class CodecPoint(NamedTuple):
    """A codec at one quality, over a data set: one row of a codec file.

    Attributes:
        codec: its name.
        quality: the encoder's.
        bytes_per_image: mean size: of the files, headers included, or of a learned codec's strings.
        kb_per_image: the same in kB of 1024 bytes.
        bpp: bits per pixel of the classifier's input, as in a student's test.
        top1: of the teacher on the decoded images, percent.
        top5: percent.
        teacher_top1: of the teacher on the images as they are, percent.
        images: how many.
        encode_ms: from the image to the file, median over single images.
        decode_ms: from the file to the classifier's logits, likewise.
    """

    codec: str
    quality: int
    bytes_per_image: float
    kb_per_image: float
    bpp: float
    top1: float
    top5: float
    teacher_top1: float
    images: int
    encode_ms: float
    decode_ms: float


def bytes_for_accuracy(points: Sequence[CodecPoint], top1: float) -> float | None:
    """Returns the fewest bytes per image at which one codec reaches an accuracy; None if it never does.

    Read from the curve by `bytes_at`; below its first point, that point's bytes count, as the codec writes nothing
    smaller.

    Args:
        points: of one codec, in any order.
        top1: the accuracy, percent.
    """
    curve = [Point(point.bytes_per_image, point.top1) for point in points]
    return bytes_at(curve, max(top1, frontier(curve)[0].top1)) if curve else None


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
    except KeyError as error:
        raise UserError(f"{path} is no codec file of this version: it has no column {error}; {_REMEDY}") from None
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no codec file ({error!r}): {_REMEDY}") from error
    if not points:
        raise UserError(f"{path} has no rows: {_REMEDY}")
    return points


def check_same_test(points: Sequence[CodecPoint], teacher_top1: float, images: int) -> None:
    """Checks that codecs were measured in front of the teacher, and on as many images, as the students beside them.

    Args:
        points: of all codecs.
        teacher_top1: of the students' teacher, percent. Another device may see an image or two in another way.
        images: on which the students were tested.

    Raises:
        UserError: another teacher or another number of images.
    """
    for point in points:
        if abs(point.teacher_top1 - teacher_top1) > _TEACHERS_MARGIN or point.images != images:
            raise UserError(
                f"the codecs were measured with a teacher of {point.teacher_top1:.2f} % top-1 on {point.images} "
                f"images, the students with one of {teacher_top1:.2f} % on {images}: measure both with the same, "
                "scripts/evaluate_codecs.py takes a student's --config"
            )


def by_codec(points: Sequence[CodecPoint]) -> dict[str, list[CodecPoint]]:
    """Returns the points of each codec, in the order in which the codecs first appear."""
    curves: dict[str, list[CodecPoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves
