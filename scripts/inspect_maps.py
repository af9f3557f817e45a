"""Shows what is in a folder of saliency maps: which images have one, what the values are like, a sheet of overlays."""

import argparse
import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from misc.datasets.image_folder import ImageFolder, read_rgb
from misc.errors import UserError, exit_on_user_error
from misc.files import written
from saliency_maps.analysis.drawing import in_colour, overlay, png
from saliency_maps.analysis.inspection import (
    coverage_lines,
    defects,
    layers,
    method,
    origin,
    read_all,
    section,
    settings_of,
    value_lines,
)
from saliency_maps.analysis.pairing import maps_of_images
from saliency_maps.map_folder import MapFolder, relative_image_names

TILE, SEAM, GAP, LINE, FONT, SCALE = 160, 4, 24, 20, 13, 120  # pixels
TEXT, QUIET, GROUND = "#1d2127", "#5b6470", "#eceef1"


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
    """Refuses what could only fail after all maps have been read."""
    if num_images < 1:
        raise UserError(f"--images is {num_images}: expected 1 or more")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output is {output}: expected a file that ends in .png")


def names_of_images(root: Path) -> list[str]:
    """Returns the images' names below `root`, `cat/0001.jpg`."""
    images = ImageFolder(root)
    return relative_image_names(images.root, (path for path, _ in images.samples))


# ---------------------------------------------------------------------------------------------------------------------
# What is drawn
# ---------------------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """The names of a map, `cat/0001.npy`, and of its image, `cat/0001.jpg`; None where no images were given."""

    map_name: str
    image_name: str | None


def samples_of(maps: MapFolder, maps_of: Mapping[str, str]) -> list[Sample]:
    """Returns all images with their maps or, without images, all maps; by name."""
    if maps_of:
        return [Sample(map_name, image_name) for image_name, map_name in sorted(maps_of.items())]
    return [Sample(name, None) for name in sorted(maps.names)]


def chosen(samples: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Chooses samples at random, as many as there are; they stay in order."""
    return sorted(random.Random(seed).sample(samples, min(number, len(samples))))


def cell(sample: Sample, saliency: np.ndarray, images: Path | None) -> Image.Image:
    """Draws one sample under its class and name: image, map, overlay, or the map alone."""
    folder, _, file = (sample.image_name or sample.map_name.removesuffix(".npy")).partition("/")
    if sample.image_name is None:
        panels = [stretched(in_colour(saliency), shape_in_tile(saliency.shape[::-1]))]
    else:
        image = read_rgb(images / sample.image_name)
        image = image.resize(shape_in_tile(image.size), Image.Resampling.BICUBIC)
        panels = [image, stretched(in_colour(saliency), image.size), overlay(image, saliency)]
    drawing = Image.new("RGB", (len(panels) * (TILE + SEAM) - SEAM, LINE + TILE), "white")
    write(drawing, (0, 0), f"{folder}/", file)
    for number, panel in enumerate(panels):
        drawing.paste(GROUND, (number * (TILE + SEAM), LINE, number * (TILE + SEAM) + TILE, LINE + TILE))
        x, y = (TILE - panel.width) // 2, (TILE - panel.height) // 2
        drawing.paste(panel, (number * (TILE + SEAM) + x, LINE + y))
    return drawing


def shape_in_tile(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest (width, height) of the same shape as `size` that fits into a tile."""
    scale = TILE / max(size)
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def stretched(drawing: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Makes every value of a map a block, so that the map's own resolution shows."""
    return drawing.resize(size, Image.Resampling.NEAREST)


def heading(settings: Mapping[str, Any], num_drawn: int, num_maps: int) -> list[str]:
    """Returns the lines above the sheet."""
    return [
        f"{settings.get('model', 'unknown')} · {method(settings)}",
        f"layers {layers(settings)}",
        f"{num_drawn:,} of {num_maps:,} maps, chosen at random",
    ]


def sheet(cells: Sequence[Image.Image], lines: Sequence[str], has_images: bool) -> Image.Image:
    """Puts cells of one size in rows below the heading and a scale of the colours."""
    columns = min(len(cells), 2 if has_images else 6)
    rows = math.ceil(len(cells) / columns)
    width, height = cells[0].size
    top = GAP + (len(lines) + 1) * LINE + GAP // 2
    needed = max(columns * (width + GAP), *(math.ceil(font().getlength(line)) + GAP for line in lines))
    drawing = Image.new("RGB", (needed + GAP, top + rows * (height + GAP)), "white")
    first, *others = lines
    write(drawing, (GAP, GAP), first)
    for number, line in enumerate(others, 1):
        write(drawing, (GAP, GAP + number * LINE), "", line)
    draw_scale(drawing, GAP, GAP + len(lines) * LINE)
    if has_images:
        write(
            drawing, (GAP + SCALE + 3 * LINE, GAP + len(lines) * LINE), "", "Left to right: image, map, map over image"
        )
    for number, picture in enumerate(cells):
        row, column = divmod(number, columns)
        drawing.paste(picture, (GAP + column * (width + GAP), top + row * (height + GAP)))
    return drawing


def draw_scale(drawing: Image.Image, x: int, y: int) -> None:
    """Draws the colours from 0 to 1."""
    bar = in_colour(np.linspace(0, 1, SCALE, dtype=np.float32)[None]).resize((SCALE, LINE // 2))
    write(drawing, (x, y), "", "0")
    drawing.paste(bar, (x + FONT, y + LINE // 4))
    write(drawing, (x + FONT + SCALE + FONT // 3, y), "", "1")


def write(drawing: Image.Image, place: tuple[int, int], strong: str, quiet: str = "") -> None:
    """Writes a line in two colours; where it does not fit, parts lose their beginnings, in which names are alike."""
    x, y = place
    room = drawing.width - x
    room_of_strong = max(room // 2, room - math.ceil(font().getlength(quiet)))
    for text, colour, end in ((strong, TEXT, x + room_of_strong), (quiet, QUIET, drawing.width)):
        fitting = shortened(text, end - x)
        ImageDraw.Draw(drawing).text((x, y + LINE // 2), fitting, colour, font(), anchor="lm")
        x += round(font().getlength(fitting))


def shortened(text: str, room: int) -> str:
    """Returns the longest end of a text that takes at most `room` pixels."""
    if font().getlength(text) <= room:
        return text
    ends = (f"…{text[start:]}" for start in range(1, len(text) + 1))
    return next((end for end in ends if font().getlength(end) <= room), "")


@cache
def font() -> ImageFont.FreeTypeFont:
    """Returns a font with more letters than Pillow's own, which has hardly any beyond ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), FONT)


if __name__ == "__main__":
    main()
