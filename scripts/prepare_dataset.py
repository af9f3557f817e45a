"""Prepares data sets: ImageFolders with train/ and val/, and a manifest."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.digits_on_photographs import NUM_TRAIN, NUM_VAL, write_data_set
from misc.errors import UserError, exit_on_user_error


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    digits = data_sets.add_parser("digits", help="digits on photographs, composed from what scikit-learn ships")
    digits.add_argument("--output", required=True, metavar="DIR", help="folder for train/, val/, val_masks/")
    digits.add_argument("--num_train", type=int, default=NUM_TRAIN, help="default: %(default)s")
    digits.add_argument("--num_val", type=int, default=NUM_VAL, help="default: %(default)s")
    digits.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    if min(args.num_train, args.num_val) < 10:
        raise UserError("--num_train and --num_val must be 10 or more: one image per class")
    manifest = write_data_set(args.output, args.num_train, args.num_val, args.seed)
    print(
        f"{args.output}: {manifest['num_train']:,} training and {manifest['num_val']:,} validation images, ten classes"
    )


if __name__ == "__main__":
    main()
