"""Image codecs as reference: Pillow's lossy formats and CompressAI's pretrained models, each at several qualities.

A codec that is not to be had, since Pillow was built without it or its weights cannot be loaded, is left out with a
line that says so. What a codec costs at each quality, and what a classifier makes of it, are the points of its curve.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import PIL
import torch
from compressai.models import CompressionModel
from compressai.ops import compute_padding
from compressai.zoo import image_models
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype, to_pil_image

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError, did_you_mean
from misc.evaluation.accuracy import KILOBYTE, Accuracy, test_classifier
from misc.evaluation.codec_table import CodecPoint
from misc.evaluation.timing import TIMED_IMAGES, latencies, latencies_in_turn
from misc.progress import progress_bar


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


BATCH = 8  # images, each of them in every setting


@torch.inference_mode()
def evaluate(
    teacher: nn.Module, images: ImageFolder, settings: list[Setting], device: torch.device, num_workers: int
) -> list[CodecPoint]:
    """Returns a point per codec and quality, in the order of the settings."""
    original = test_classifier(teacher, DataLoader(images, BATCH, num_workers=num_workers), device, "originals")
    accuracies = [Accuracy() for _ in settings]
    num_bytes = torch.zeros(len(settings), dtype=torch.int64)
    loader = DataLoader(CodedImages(images, settings), BATCH, num_workers=num_workers)
    with progress_bar(None, "codecs", len(images)) as bar:
        for x, labels, sizes in loader:
            logits = teacher(x.flatten(0, 1).to(device)).cpu().unflatten(0, x.shape[:2])
            for accuracy, logits_of_setting in zip(accuracies, logits.unbind(1), strict=True):
                accuracy.update(logits_of_setting, labels)
            num_bytes += sizes.sum(0)
            bar.update(len(x))
    sizes, pixels = (num_bytes.double() / len(images)).tolist(), x.shape[-2] * x.shape[-1]
    timings = [partial(latency, setting, images, teacher, device) for setting in settings]
    found = zip(settings, accuracies, sizes, latencies_in_turn(timings, unit="settings"), strict=True)
    return [
        point_of(setting, accuracy, original["top1"], size, pixels, milliseconds)
        for setting, accuracy, size, milliseconds in found
    ]


def point_of(
    setting: Setting,
    accuracy: Accuracy,
    teacher_top1: float,
    size: float,
    pixels: int,
    milliseconds: dict[str, float],
) -> CodecPoint:
    """Puts the figures of a setting into a row; `pixels` is the size of the teacher's input."""
    top1, top5 = accuracy.percent()
    kb, bpp = size / KILOBYTE, 8 * size / pixels
    found = (size, kb, bpp, top1, top5, teacher_top1, accuracy.images)
    return CodecPoint(setting.codec, setting.quality, *found, **milliseconds)


def latency(setting: Setting, images: ImageFolder, teacher: nn.Module, device: torch.device) -> dict[str, float]:
    """Returns encode_ms and decode_ms of one image: to the file, and from there to the teacher's logits."""
    step = -(-len(images) // TIMED_IMAGES)
    timed = [images.loader(path) for path, _ in images.samples[::step]]

    def classify(stream: Stream) -> Tensor:
        return teacher(images.transform(setting.decode(stream.content))[None].to(device))

    return latencies(timed, setting.encode, classify)
