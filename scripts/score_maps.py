"""Score saliency maps against masks or bounding boxes: how much of each lies on the object.

Masks are PNGs under the images' names, MASKS/CLASS/IMAGE.png, bright on the object. Boxes are Tiny ImageNet's files:
val_annotations.txt, <class>_boxes.txt, or a folder with such files in it or below it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError, exit_on_user_error
from misc.progress import progress_bar
from misc.tables import text_table
from saliency_maps.analysis.objects import box_masks_of, masks_of
from saliency_maps.analysis.pairing import maps_of_images
from saliency_maps.analysis.scores import MapScores, score_maps
from saliency_maps.map_folder import MapFolder, relative_image_names


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, metavar="MAPS", help="folder of maps")
    parser.add_argument("--input", required=True, type=Path, metavar="IMAGES", help="the images, one folder per class")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--masks", type=Path, metavar="DIR", help="a PNG per image")
    truth.add_argument("--boxes", type=Path, metavar="FILE_OR_DIR", help="Tiny ImageNet's boxes")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    images, maps = ImageFolder(args.input), MapFolder(args.maps)
    names = relative_image_names(images.root, (path for path, _ in images.samples))
    maps_of = maps_of_images(maps, names)
    objects = masks_of(args.masks, names) if args.masks else box_masks_of(args.boxes, names, args.input)
    common = [name for name in names if name in maps_of and name in objects]
    if not common:
        raise UserError(
            f"no image in {args.input} has both a map and its object's place: {len(maps_of)} have a map in {args.maps} "
            f"({next(iter(maps_of))}, ...) and {len(objects)} have a place in {args.masks or args.boxes} "
            f"({next(iter(objects))}, ...)"
        )
    pairs = maps_and_masks(maps, [maps_of[name] for name in common], [objects[name] for name in common])
    scores = score_maps(progress_bar(pairs, "scoring maps", len(common)))
    print(summary(scores, len(names) - len(maps_of), len(names) - len(objects), "mask" if args.masks else "box"))


def maps_and_masks(
    maps: MapFolder, names: Sequence[str], masks: Sequence[Callable[[], np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((maps.read(name), mask()) for name, mask in zip(names, masks, strict=True))


def summary(scores: MapScores, num_without_map: int, num_without_object: int, kind: str) -> str:
    """Return the scores as a table; `kind` is what says where the object is."""
    return text_table(
        [
            ["images scored", f"{scores.images:,}"],
            ["images without a map", f"{num_without_map:,}"],
            [f"images without a {kind}", f"{num_without_object:,}"],
            [f"mass inside the {kind}, relative to a uniform map", f"{scores.mass_ratio:.2f}"],
            [f"pointing game: maximum inside the {kind}", f"{scores.pointing_game:.1f} %"],
            ["chance: a random point", f"{scores.chance:.1f} %"],
        ]
    )


if __name__ == "__main__":
    main()
