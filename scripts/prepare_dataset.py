"""Prepare a data set: train/, with a folder per class or source, val/, with a folder per class, and a manifest."""

import argparse
from pathlib import Path
from typing import Any

from misc.datasets.digits import NUM_TRAIN, NUM_VAL, write_data_set
from misc.datasets.imagenet import write_imagenet
from misc.datasets.photographs import write_photographs
from misc.datasets.tiny_imagenet import write_tiny_imagenet
from misc.errors import UserError, exit_on_user_error


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    digits = data_sets.add_parser("digits", help="digits on photographs, composed from what scikit-learn ships")
    digits.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for train/, val/, val_masks/")
    digits.add_argument("--num_train", type=int, default=NUM_TRAIN, help="default: %(default)s")
    digits.add_argument("--num_val", type=int, default=NUM_VAL, help="default: %(default)s")
    digits.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    digits.set_defaults(prepare=prepare_digits)
    tiny = data_sets.add_parser("tiny-imagenet", help="Tiny ImageNet, from its official archive or a part of it")
    tiny.add_argument("--archive", required=True, type=Path, metavar="FILE", help="tiny-imagenet-200.zip")
    tiny.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for train/, val/ and boxes")
    tiny.add_argument("--classes", type=classes, metavar="FILE|N", help="file of wnids, or the first N (default: all)")
    tiny.set_defaults(prepare=prepare_tiny_imagenet)
    imagenet = data_sets.add_parser("imagenet", help="ImageNet-1k (ILSVRC2012), from its official archives")
    imagenet.add_argument("--train-tar", required=True, type=Path, metavar="FILE", help="ILSVRC2012_img_train.tar")
    imagenet.add_argument("--val-tar", required=True, type=Path, metavar="FILE", help="ILSVRC2012_img_val.tar")
    imagenet.add_argument("--devkit", required=True, type=Path, metavar="FILE", help="ILSVRC2012_devkit_t12.tar.gz")
    imagenet.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for train/ and val/")
    imagenet.set_defaults(prepare=prepare_imagenet)
    photographs = data_sets.add_parser(
        "photographs", help="images without labels to train on, from folders of any kind"
    )
    photographs.add_argument(
        "--train", required=True, type=Path, nargs="+", metavar="DIR", help="with images at any depth"
    )
    photographs.add_argument("--val", required=True, type=Path, metavar="DIR", help="with a folder per class")
    photographs.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for train/ and val/")
    photographs.add_argument("--at_most", type=int, metavar="N", help="draw at most N training images (default: all)")
    photographs.set_defaults(prepare=prepare_photographs)
    return parser


def classes(text: str) -> Path | int:
    """Parse a number of classes, or the path of a file that lists them."""
    return int(text) if text.lstrip("-").isdigit() else Path(text)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    manifest = args.prepare(args)
    for source, counts in manifest.get("sources", {}).items():
        print(f"{source}: {', '.join(f'{count:,} {kind}' for kind, count in counts.items())}")
    print(
        f"{args.output}: {manifest['num_train']:,} training and {manifest['num_val']:,} validation images, "
        f"{sum(path.is_dir() for path in (args.output / 'val').iterdir())} classes"
    )


def prepare_digits(args: argparse.Namespace) -> dict[str, Any]:
    if min(args.num_train, args.num_val) < 10:
        raise UserError("--num_train and --num_val must be 10 or more: one image per class")
    return write_data_set(args.output, args.num_train, args.num_val, args.seed)


def prepare_tiny_imagenet(args: argparse.Namespace) -> dict[str, Any]:
    return write_tiny_imagenet(args.archive, args.output, args.classes)


def prepare_imagenet(args: argparse.Namespace) -> dict[str, Any]:
    return write_imagenet(args.train_tar, args.val_tar, args.devkit, args.output)


def prepare_photographs(args: argparse.Namespace) -> dict[str, Any]:
    if args.at_most is not None and args.at_most < 1:
        raise UserError(f"--at_most is {args.at_most}: expected 1 or more training images")
    return write_photographs(args.train, args.val, args.output, args.at_most)


if __name__ == "__main__":
    main()
