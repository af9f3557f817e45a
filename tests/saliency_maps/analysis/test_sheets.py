"""The grid of the contact sheets, by its pixels, and the choice of images."""

import pytest
from PIL import Image

from saliency_maps.analysis.sheets import SEAM, first_of_each_class, grid, side_by_side

WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def cells(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (10, 6), colour) for colour in colours]


def test_pictures_stand_side_by_side_with_a_seam():
    cell = side_by_side(cells("red", "blue"))
    assert cell.size == (20 + SEAM, 6)
    assert [cell.getpixel((x, 3)) for x in (9, 10, 9 + SEAM, 10 + SEAM)] == [RED, WHITE, WHITE, BLUE]


def test_cells_fill_rows_with_a_gap_on_every_side():
    sheet = grid(cells("red", "red", "blue"), columns=2, gap=5)
    assert sheet.size == (5 + 2 * 15, 5 + 2 * 11)
    corners = {
        (5, 5): RED,
        (4, 5): WHITE,
        (5, 4): WHITE,
        (20, 10): RED,
        (19, 10): WHITE,
        (5, 16): BLUE,
        (20, 16): WHITE,
    }
    assert {place: sheet.getpixel(place) for place in corners} == corners


def test_room_above_and_beside_the_cells():
    sheet = grid(cells("red"), columns=1, gap=5, top=30, min_width=50)
    assert sheet.size == (50, 30 + 11)
    assert (sheet.getpixel((5, 29)), sheet.getpixel((5, 30))) == (WHITE, RED)


@pytest.mark.parametrize(("number", "expected"), [(2, ["a1", "b1"]), (4, ["a1", "a2", "b1", "c1"]), (9, None)])
def test_the_first_of_every_class_come_before_the_second(number, expected):
    items = [(1, "b1"), (0, "a1"), (0, "a2"), (2, "c1"), (0, "a3")]
    assert first_of_each_class(items, number) == (expected or ["a1", "a2", "a3", "b1", "c1"])
