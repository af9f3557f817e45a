"""Contact sheets: pictures side by side in cells, cells in a grid."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain, islice, zip_longest
from typing import TypeVar

from PIL import Image

SEAM = 4  # pixels between the pictures of a cell
T = TypeVar("T")


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return one cell of pictures of one size, left to right."""
    width, height = pictures[0].size
    cell = Image.new("RGB", (len(pictures) * (width + SEAM) - SEAM, height), "white")
    for number, picture in enumerate(pictures):
        cell.paste(picture, (number * (width + SEAM), 0))
    return cell


def grid(
    cells: Sequence[Image.Image], columns: int, gap: int, top: int | None = None, min_width: int = 0
) -> Image.Image:
    """Return cells of one size in rows on white.

    Args:
        cells: at least one.
        columns: cells per row.
        gap: pixels between cells and around them.
        top: pixels above the first row, `gap` by default.
        min_width: of the sheet.
    """
    top = gap if top is None else top
    width, height = (side + gap for side in cells[0].size)
    size = (max(columns * width + gap, min_width), top + math.ceil(len(cells) / columns) * height)
    sheet = Image.new("RGB", size, "white")
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (gap + column * width, top + row * height))
    return sheet


def first_of_each_class(items: Iterable[tuple[int, T]], number: int) -> list[T]:
    """Return up to `number` items, sorted by class: the first of every class, then the second of every class, ...

    Args:
        items: (class, item).
        number: how many at most.
    """
    by_class: dict[int, list[tuple[int, T]]] = {}
    for label, item in items:
        by_class.setdefault(label, []).append((label, item))
    in_turn = (pair for pair in chain.from_iterable(zip_longest(*by_class.values())) if pair is not None)
    return [item for _, item in sorted(islice(in_turn, number), key=lambda pair: pair[0])]
