"""Evaluate image codecs as baselines: bytes per image, and the teacher's accuracy on the decoded images.

Every image of a config's test set passes through each codec at several qualities and then to the unmodified teacher.
JPEG (4:2:0, optimised Huffman tables), WebP (slowest method) and AVIF are Pillow's; the whole file counts, as its
headers are sent too (some 300 bytes of an AVIF). Of CompressAI's pretrained models the entropy-coded strings alone
count; their weights, some 560 MB, are downloaded at first use. A codec that cannot be used is skipped with a message.
Encoding, and decoding with classification, are timed at the end, single images on one core. 1 kB = 1024 bytes.
"""

import argparse
import os
import statistics
from pathlib import Path

from misc.config.entries import build_model, images_of_test
from misc.config.load import load_config
from misc.devices import default_device, share_cores, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.codec_table import summary, write_points
from misc.evaluation.codecs import CODECS, available_settings, evaluate_codecs


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="config with the test set and the teacher")
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
    points = evaluate_codecs(teacher, images, settings, device, args.num_workers)
    write_points(args.output, points)
    stored = statistics.mean(Path(path).stat().st_size for path, _ in images.samples)
    print(
        f"\nTeacher on {len(images):,} images as they are, files of {stored:,.0f} bytes on average: top-1 "
        f"{points[0].teacher_top1:.2f} %; after a codec\n{summary(points)}\n\nResults: {args.output}"
    )


if __name__ == "__main__":
    main()
