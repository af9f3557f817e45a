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
from pathlib import Path

from misc.config.entries import build_model, images_of_test
from misc.config.load import load_config
from misc.devices import default_device, share_cores, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.codec_table import CodecPoint, by_codec, write_points
from misc.evaluation.codecs import CODECS, available_settings, evaluate


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
