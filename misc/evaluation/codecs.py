"""Image codecs as baselines: Pillow's lossy formats and CompressAI's pretrained models, each at several qualities.

A codec that Pillow was built without, or whose weights cannot be loaded, is skipped with a message. The rate of a codec
at each quality, and the accuracy of a classifier on the decoded images, are the points of its curve.
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
from misc.evaluation.accuracy import KILOBYTE, Accuracy, evaluate_classifier
from misc.evaluation.codec_table import CodecPoint
from misc.evaluation.timing import TIMED_IMAGES, latencies, latencies_in_turn
from misc.progress import progress_bar


class Stream(NamedTuple):
    """An encoded image, and its number of bytes that count as rate."""

    num_bytes: int
    content: object


class Coded(NamedTuple):
    """A decoded RGB image, and its number of bytes."""

    num_bytes: int
    image: Image.Image


class Setting(NamedTuple):
    """A codec at one quality."""

    codec: str
    quality: int
    encode: Callable[[Image.Image], Stream]
    decode: Callable[[object], Image.Image]

    def round_trip(self, image: Image.Image) -> Coded:
        """Encode an RGB image and decode it."""
        stream = self.encode(image)
        return Coded(stream.num_bytes, self.decode(stream.content))


class UnavailableError(Exception):
    """A codec cannot be used here; the message says why."""


def pillow_format(name: str, qualities: Sequence[int], **options: object) -> list[Setting]:
    """Return the settings of one of Pillow's formats; `options` go to `Image.save`."""
    Image.init()
    if name.upper() not in Image.SAVE:
        raise UnavailableError(f"Pillow {PIL.__version__} was built without it; 11.3 and later have it")
    return [
        Setting(name, quality, partial(to_file, name, {"quality": quality, **options}), from_file)
        for quality in qualities
    ]


def compressai_model(name: str, qualities: Sequence[int]) -> list[Setting]:
    """Return the settings of one of CompressAI's models, with weights pretrained for MSE."""
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


# Each format starts at its encoder's lowest quality. Tiny ImageNet's files are JPEGs of quality 75, at which alone
# re-encoding them is almost lossless.
JPEG_QUALITIES = (1, 2, 3, 5, 8, 12, 20, 35, 60, 75, 90, 97)
CODECS: dict[str, Callable[[], list[Setting]]] = {
    "JPEG": partial(pillow_format, "JPEG", JPEG_QUALITIES, subsampling="4:2:0", optimize=True),
    "WebP": partial(pillow_format, "WebP", (0, 1, 2, 5, 10, 20, 40, 60, 80, 93), method=6),
    # Slower speeds than Pillow's default take ten times as long and save nothing at 64 x 64, 3 % at 256 x 171.
    "AVIF": partial(pillow_format, "AVIF", (0, 5, 10, 20, 30, 40, 50, 60, 75, 90, 97), max_threads=1),
    "bmshj2018-factorized": partial(compressai_model, "bmshj2018-factorized", (1, 2, 3, 4, 6, 8)),
    "mbt2018-mean": partial(compressai_model, "mbt2018-mean", (1, 2, 3, 4, 6, 8)),
    "cheng2020-anchor": partial(compressai_model, "cheng2020-anchor", (1, 3, 5)),
}


def available_settings(names: Sequence[str]) -> list[Setting]:
    """Return all settings of the named codecs; print a line for each codec that cannot be used here.

    Raises:
        UserError: an unknown codec, or none that can be used.
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
    """Encode an image as a file of one of Pillow's formats; the whole file counts, as its headers are sent too."""
    pixels = image.copy()
    pixels.info = {}  # Pillow would copy comments and colour profiles of the source, which would count as rate
    file = io.BytesIO()
    pixels.save(file, name, **options)
    return Stream(file.tell(), file.getvalue())


def from_file(content: bytes) -> Image.Image:
    """Decode a file of one of Pillow's formats to RGB."""
    return Image.open(io.BytesIO(content)).convert("RGB")


@torch.inference_mode()
def to_strings(model: CompressionModel, image: Image.Image) -> Stream:
    """Encode an image with one of CompressAI's models; the strings alone count, as there is no file format.

    Args:
        model: takes images (B, 3, H, W) in [0, 1] with H and W multiples of its downsampling factor, to which the image
            is padded by repeating its border; `from_strings` crops it again.
        image: RGB.
    """
    margins, crop = compute_padding(image.height, image.width, min_div=model.downsampling_factor)
    x = pil_to_tensor(image)[None] / 255
    coded = model.compress(pad(x, margins, mode="replicate"))
    num_bytes = sum(len(string) for strings in coded["strings"] for string in strings)
    return Stream(num_bytes, (coded, crop))


@torch.inference_mode()
def from_strings(model: CompressionModel, content: tuple[dict, tuple[int, ...]]) -> Image.Image:
    """Decode the content of a stream that `to_strings` returned for the same model."""
    coded, crop = content
    x_hat = pad(model.decompress(**coded)["x_hat"], crop)[0].clamp(0, 1)
    return to_pil_image(to_dtype(x_hat, torch.uint8, scale=True))


class CodedImages(Dataset):
    """An ImageFolder's images after a round trip through each of S settings.

    An item is (x, label, sizes): x (S, 3, H, W) is transformed by the folder's transform; sizes (S,) are in bytes.
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


BATCH = 8  # images, each in every setting


@torch.inference_mode()
def evaluate_codecs(
    teacher: nn.Module, images: ImageFolder, settings: list[Setting], device: torch.device, num_workers: int
) -> list[CodecPoint]:
    """Return the point of each setting, in the order of the settings.

    Args:
        teacher: classifies the decoded images; in eval mode, on `device`.
        images: with the transform of the teacher's input.
        settings: codecs and qualities.
        device: of the teacher.
        num_workers: processes that encode and decode.
    """
    original = evaluate_classifier(teacher, DataLoader(images, BATCH, num_workers=num_workers), device, "originals")
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
    measured = zip(settings, accuracies, sizes, latencies_in_turn(timings, unit="settings"), strict=True)
    return [
        point_of(setting, accuracy, original["top1"], size, pixels, milliseconds)
        for setting, accuracy, size, milliseconds in measured
    ]


def point_of(
    setting: Setting,
    accuracy: Accuracy,
    teacher_top1: float,
    size: float,
    pixels: int,
    milliseconds: dict[str, float],
) -> CodecPoint:
    """Return the table row of a setting.

    Args:
        setting: the codec and its quality.
        accuracy: the teacher's counts on the decoded images.
        teacher_top1: percent, on the stored images.
        size: mean bytes per image.
        pixels: of the teacher's input.
        milliseconds: encode_ms and decode_ms.
    """
    top1, top5 = accuracy.percent()
    kb, bpp = size / KILOBYTE, 8 * size / pixels
    return CodecPoint(
        setting.codec, setting.quality, size, kb, bpp, top1, top5, teacher_top1, accuracy.images, **milliseconds
    )


def latency(setting: Setting, images: ImageFolder, teacher: nn.Module, device: torch.device) -> dict[str, float]:
    """Return encode_ms, image to file, and decode_ms, file to the teacher's logits: medians over single images."""
    step = -(-len(images) // TIMED_IMAGES)
    timed = [images.loader(path) for path, _ in images.samples[::step]]

    def classify(stream: Stream) -> Tensor:
        return teacher(images.transform(setting.decode(stream.content))[None].to(device))

    return latencies(timed, setting.encode, classify)
