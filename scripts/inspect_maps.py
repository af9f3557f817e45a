"""Show what is in a folder of saliency maps: which images have one, statistics of the values, a sheet of overlays."""

import argparse
from pathlib import Path

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError, exit_on_user_error
from misc.files import written
from saliency_maps.analysis.drawing import png
from saliency_maps.analysis.inspection import (
    coverage_lines,
    defects,
    origin,
    read_all,
    section,
    settings_of,
    value_lines,
)
from saliency_maps.analysis.inspection_sheet import cell, chosen, heading, samples_of, sheet
from saliency_maps.analysis.pairing import maps_of_images
from saliency_maps.map_folder import MapFolder, relative_image_names


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("maps", type=Path, metavar="MAPS", help="folder of maps")
    add("--input", type=Path, metavar="IMAGES", help="their images, one folder per class (default: show maps alone)")
    add("--output", type=Path, metavar="SHEET.png", help="where to draw the sheet (default: MAPS/sheet.png)")
    add("--images", type=int, default=12, metavar="N", help="how many to draw (default: %(default)s)")
    add("--seed", type=int, default=0, help="decides which are drawn (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    output = args.output or args.maps / "sheet.png"
    check_arguments(args.images, output)
    maps = MapFolder(args.maps)
    settings, is_finished = settings_of(maps)
    if not maps.names:
        raise UserError(f"{args.maps} holds no maps: expected CLASS/IMAGE.npy, or CLASS.npy with CLASS.json")
    names = names_of_images(args.input) if args.input else []
    maps_of = maps_of_images(maps, names) if args.input else {}
    contents = read_all(maps)
    print(section("Maps", origin(args.maps, settings, is_finished)))
    coverage = coverage_lines(maps, args.input, names, maps_of, settings) if args.input else []
    print(section("Coverage", [("maps", f"{len(maps.names):,}"), *coverage, *defects(contents)]))
    print(section("Values", value_lines(contents.statistics)))

    samples = [sample for sample in samples_of(maps, maps_of) if sample.map_name not in contents.damaged]
    drawn = chosen(samples, args.images, args.seed)
    cells = [cell(sample, maps.read(sample.map_name), args.input) for sample in drawn]
    with written(output) as file:
        file.write(png(sheet(cells, heading(settings, len(drawn), len(samples)), bool(args.input))))
    print(f"Sheet of {len(drawn)}: {output}")


def check_arguments(num_images: int, output: Path) -> None:
    """Reject arguments that would otherwise fail only after all maps have been read."""
    if num_images < 1:
        raise UserError(f"--images is {num_images}: expected 1 or more")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output is {output}: expected a file that ends in .png")


def names_of_images(root: Path) -> list[str]:
    """Return the images' names below `root`, `cat/0001.jpg`."""
    images = ImageFolder(root)
    return relative_image_names(images.root, (path for path, _ in images.samples))


if __name__ == "__main__":
    main()
