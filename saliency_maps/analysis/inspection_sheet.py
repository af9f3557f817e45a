"""Sheet of randomly chosen saliency maps, beside and over their images where these are given."""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from misc.datasets.image_folder import read_rgb
from saliency_maps.analysis.drawing import in_colour, overlay
from saliency_maps.analysis.inspection import layers, method
from saliency_maps.analysis.sheets import grid, side_by_side
from saliency_maps.analysis.text import FONT, LINE, font, write
from saliency_maps.map_folder import MapFolder

TILE, GAP, SCALE = 160, 24, 120  # pixels
GROUND = "#eceef1"


class Sample(NamedTuple):
    """The names of a map, `cat/0001.npy`, and of its image, `cat/0001.jpg`; None where no images were given."""

    map_name: str
    image_name: str | None


def samples_of(maps: MapFolder, maps_of: Mapping[str, str]) -> list[Sample]:
    """Return all images with their maps or, without images, all maps; by name."""
    if maps_of:
        return [Sample(map_name, image_name) for image_name, map_name in sorted(maps_of.items())]
    return [Sample(name, None) for name in sorted(maps.names)]


def chosen(samples: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Return up to `number` samples, drawn at random and kept in order."""
    return sorted(random.Random(seed).sample(samples, min(number, len(samples))))


def cell(sample: Sample, saliency: np.ndarray, images: Path | None) -> Image.Image:
    """Draw one sample under its class and name: image, map, overlay, or the map alone."""
    folder, _, file = (sample.image_name or sample.map_name.removesuffix(".npy")).partition("/")
    if sample.image_name is None:
        panels = [stretched(in_colour(saliency), shape_in_tile(saliency.shape[::-1]))]
    else:
        image = read_rgb(images / sample.image_name)
        image = image.resize(shape_in_tile(image.size), Image.Resampling.BICUBIC)
        panels = [image, stretched(in_colour(saliency), image.size), overlay(image, saliency)]
    tiles = side_by_side([_centred(panel) for panel in panels])
    drawing = Image.new("RGB", (tiles.width, LINE + TILE), "white")
    write(drawing, (0, 0), f"{folder}/", file)
    drawing.paste(tiles, (0, LINE))
    return drawing


def _centred(panel: Image.Image) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), GROUND)
    tile.paste(panel, ((TILE - panel.width) // 2, (TILE - panel.height) // 2))
    return tile


def shape_in_tile(size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (width, height) of the same shape as `size` that fits into a tile."""
    scale = TILE / max(size)
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def stretched(drawing: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarge a map so that each of its values is a block, which shows its resolution."""
    return drawing.resize(size, Image.Resampling.NEAREST)


def heading(settings: Mapping[str, Any], num_drawn: int, num_maps: int) -> list[str]:
    """Return the lines above the sheet."""
    return [
        f"{settings.get('model', 'unknown')} · {method(settings)}",
        f"layers {layers(settings)}",
        f"{num_drawn:,} of {num_maps:,} maps, chosen at random",
    ]


def sheet(cells: Sequence[Image.Image], lines: Sequence[str], has_images: bool) -> Image.Image:
    """Put cells of one size in rows below the heading and a scale of the colours."""
    top = GAP + (len(lines) + 1) * LINE + GAP // 2
    min_width = max(math.ceil(font().getlength(line)) for line in lines) + 2 * GAP
    columns = min(len(cells), 2 if has_images else 6)
    drawing = grid(cells, columns, GAP, top, min_width)
    first, *others = lines
    write(drawing, (GAP, GAP), first)
    for number, line in enumerate(others, 1):
        write(drawing, (GAP, GAP + number * LINE), "", line)
    legend = GAP + len(lines) * LINE
    draw_scale(drawing, GAP, legend)
    if has_images:
        write(drawing, (GAP + SCALE + 3 * LINE, legend), "", "Left to right: image, map, map over image")
    return drawing


def draw_scale(drawing: Image.Image, x: int, y: int) -> None:
    """Draw the colours from 0 to 1."""
    bar = in_colour(np.linspace(0, 1, SCALE, dtype=np.float32)[None]).resize((SCALE, LINE // 2))
    write(drawing, (x, y), "", "0")
    drawing.paste(bar, (x + FONT, y + LINE // 4))
    write(drawing, (x + FONT + SCALE + FONT // 3, y), "", "1")
