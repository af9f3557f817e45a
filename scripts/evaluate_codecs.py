"""Measures image codecs as reference: bytes per image, and what the teacher makes of the decoded images.

Every image of a config's test data set goes through each codec at several qualities and then to the untouched teacher.
JPEG (4:2:0, optimised Huffman tables), WebP (slowest method) and AVIF are Pillow's; a file counts whole, headers
included, since they travel too: of an AVIF they are some 300 bytes. CompressAI's pretrained models count by their
entropy-coded strings alone; their weights, some 560 MB, are downloaded at first use. A codec that cannot be used is
skipped with a line that says why. Encoding, and decoding with classifying, are timed at the end, single images on one
core. 1 kB = 1024 bytes.
"""

import argparse
import os
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.codecs import CODECS, CodecPoint, CodedImages, Setting, Stream, available_settings, by_codec, write_points
from misc.config import load_config
from misc.cores import share_cores
from misc.device import default_device, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation import KILOBYTE, TIMED_IMAGES, Accuracy, latencies, latencies_in_turn, test_classifier
from misc.image_folder import ImageFolder
from misc.models import build_model
from misc.progress import progress_bar

BATCH = 8  # images, each of them in every setting


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="names the test data set and the teacher")
    parser.add_argument("--output", required=True, type=Path, metavar="CSV", help="one row per codec and quality")
    names = ", ".join(CODECS)
    parser.add_argument("--codecs", nargs="+", metavar="NAME", default=list(CODECS), help=f"of {names} (default: all)")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--num_workers", type=int, default=workers, help="processes that encode (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    share_cores()
    device = usable_device(args.device)
    config = load_config(args.config, mode="test").data
    images = images_of_test(config)
    if "teacher_model" not in config["models"]:
        raise UserError(f"{args.config} names no teacher_model: give the config of a student")
    teacher = build_model("teacher_model", config["models"]["teacher_model"], device)
    settings = available_settings(args.codecs)
    points = evaluate(teacher, images, settings, device, args.num_workers)
    write_points(args.output, points)
    stored = statistics.mean(Path(path).stat().st_size for path, _ in images.samples)
    print(f"\nTeacher on {len(images):,} images as they are, files of {stored:,.0f} bytes on average: top-1", end=" ")
    print(f"{points[0].teacher_top1:.2f} %; after a codec")
    print(f"{summary(points)}\n\nResults: {args.output}")


def images_of_test(config: dict) -> ImageFolder:
    """Returns the data set on which the config tests."""
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    if not isinstance(images, ImageFolder) or images.transform is None:
        raise UserError("the config's test data set must be an ImageFolder with a transform: codecs need image files")
    return images


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


def summary(points: list[CodecPoint]) -> str:
    """Returns one line per codec: the span of its curve."""
    curves = by_codec(points)
    width = max(map(len, curves))
    lines = []
    for name, curve in curves.items():
        first, last = curve[0], curve[-1]
        lines.append(
            f"  {name:<{width}}  {first.bytes_per_image:6,.0f} to {last.bytes_per_image:6,.0f} bytes/image, "
            f"top-1 {first.top1:5.2f} to {last.top1:5.2f} %  (quality {first.quality} to {last.quality})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
