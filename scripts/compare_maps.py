"""Compare two folders of maps of the same images: how far apart the values are, for instance of --autocast's maps."""

import argparse
from pathlib import Path

import numpy as np

from misc.errors import UserError, exit_on_user_error
from misc.tables import text_table
from saliency_maps.map_folder import MapFolder


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs=2, type=Path, metavar="MAPS", help="two folders of maps of one size")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    first, second = map(MapFolder, args.folders)
    names = sorted(first.names & second.names)
    if not names or first.read(names[0]).shape != second.read(names[0]).shape:
        raise UserError(
            f"{first.root} and {second.root} have no map of one name and size: give maps of the same images"
        )
    differences = np.stack([np.abs(first.read(name) - second.read(name)) for name in names])
    table = [
        ["maps in both", f"{len(names):,}"],
        ["mean absolute difference", f"{differences.mean():.4f}"],
        ["largest", f"{differences.max():.4f}"],
        ["maps with one above 0.5", f"{(differences.max(axis=(1, 2)) > 0.5).sum():,}"],
    ]
    print(text_table(table))


if __name__ == "__main__":
    main()
