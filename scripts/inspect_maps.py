"""Shows what is in a folder of saliency maps: which images have one, what the values are like, a sheet of overlays."""

import argparse
import math
import random
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.errors import UserError, exit_on_user_error
from misc.image_folder import ImageFolder, read_rgb
from misc.progress import progress_bar
from saliency_maps.drawing import in_colour, overlay, png
from saliency_maps.map_folder import MANIFEST, SETTINGS, MapFolder, dataset_identity, read_json, relative_image_names
from saliency_maps.map_statistics import QUANTILES, TOP_SHARE, MapStatistics
from saliency_maps.pairing import maps_of_images
from saliency_maps.writing import written

HEADING = 22  # characters
FIRST = 3  # names shown of a longer list
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
# What is printed
# ---------------------------------------------------------------------------------------------------------------------

Lines = list[tuple[str, str]]


def section(title: str, lines: Lines) -> str:
    """Returns a titled list of headings and texts."""
    return "\n".join([title, *(f"  {heading:<{HEADING}}{text}" for heading, text in lines), ""])


def settings_of(maps: MapFolder) -> tuple[dict[str, Any], bool]:
    """Returns what the maps depend on, and whether the run that makes them has ended.

    Raises:
        UserError: the folder has neither a manifest nor the settings of a run.
    """
    if (maps.root / MANIFEST).is_file() or not (maps.root / SETTINGS).is_file():
        return maps.manifest.get("settings", {}), True
    return read_json(maps.root / SETTINGS), False


def origin(folder: Path, settings: Mapping[str, Any], is_finished: bool) -> Lines:
    """Returns how the maps were made."""
    lines = [
        ("folder", str(folder)),
        ("method", method(settings)),
        ("layers", layers(settings)),
        ("model", str(settings.get("model", "unknown"))),
        ("size", " x ".join(map(str, settings.get("map_size", ["unknown"])))),
    ]
    unfinished = ("state", f"unfinished, there is no {MANIFEST} yet: give the command that makes the maps again")
    return lines if is_finished else [*lines, unfinished]


def method(settings: Mapping[str, Any]) -> str:
    """Returns the CAM method, and whether it takes the principal component."""
    return settings.get("saliency_type", "unknown") + (", eigen_smooth" if settings.get("eigen_smooth") else "")


def layers(settings: Mapping[str, Any]) -> str:
    """Returns the layers that were looked at: a method on all of them would fill the screen."""
    names = settings.get("layers", ["unknown"])
    return ", ".join(names) if len(names) <= FIRST + 1 else counted(names)


def coverage_lines(
    maps: MapFolder, root: Path, names: Sequence[str], maps_of: Mapping[str, str], settings: Mapping[str, Any]
) -> Lines:
    """Returns which images have a map and which maps an image."""
    missing = [name for name in names if name not in maps_of]
    orphans = sorted(maps.names.difference(maps_of.values()))
    is_same = settings.get("dataset_sha256") == dataset_identity(root, names)
    return [
        ("images", f"{len(names):,}" + ("" if is_same else ", not the ones that the maps were made for")),
        ("images with a map", f"{len(maps_of):,} ({100 * len(maps_of) / len(names):.1f} %)"),
        ("images without", counted(missing)),
        ("maps without image", counted(orphans)),
    ]


class Contents(NamedTuple):
    """What all maps hold, and the names of those whose values are all equal, and of those that cannot be read."""

    statistics: MapStatistics
    uniform: list[str]
    damaged: list[str]


def read_all(maps: MapFolder) -> Contents:
    """Reads every map once."""
    contents = Contents(MapStatistics(), [], [])
    for name in progress_bar(sorted(maps.names), "reading maps", unit="maps"):
        try:
            saliency = maps.read(name)
        except UserError:
            contents.damaged.append(name)
            continue
        if contents.statistics.update(saliency):
            contents.uniform.append(name)
    if not contents.statistics.maps:
        maps.read(contents.damaged[0])  # says what is wrong with it
    return contents


def defects(contents: Contents) -> Lines:
    """Returns which maps say nothing."""
    return [("uniform maps", counted(contents.uniform)), ("damaged maps", counted(contents.damaged))]


def counted(names: Sequence[str]) -> str:
    """Returns how many, and the first of them."""
    shown = ", ".join(names[:FIRST]) + (", ..." if len(names) > FIRST else "")
    return f"{len(names):,}: {shown}" if names else "0"


def value_lines(statistics: MapStatistics) -> Lines:
    """Returns what the values are like; a map that prefers nothing has the figures in brackets."""
    quantiles = (f"{statistics.quantile(share):.3f} ({100 * share:.0f} %)" for share in QUANTILES)
    return [
        ("mean", f"{statistics.mean:.3f}"),
        ("standard deviation", f"{statistics.std:.3f}"),
        ("quantiles", ", ".join(quantiles)),
        (
            f"mass in top {100 * TOP_SHARE:.0f} %",
            f"{100 * statistics.top_share:.1f} % of a map's mass lies in its "
            f"{100 * TOP_SHARE:.0f} % highest positions (uniform map: {100 * TOP_SHARE:.0f} %)",
        ),
        ("entropy", f"{statistics.relative_entropy:.3f} of a uniform map's"),
    ]


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
