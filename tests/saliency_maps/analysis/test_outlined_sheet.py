"""The sheet of outlined maps, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from saliency_maps.analysis.outlined_sheet import COLUMNS, GAP, TILE, Sample, outline, outlined_sheet
from saliency_maps.analysis.sheets import SEAM
from saliency_maps.map_folder import MANIFEST, MapFolder, write_json, write_map

SQUARE = np.zeros((64, 64), np.uint8)
SQUARE[16:48, 16:48] = 255


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """Nine images of three classes, class by class, each with a map of zeros and a square as mask."""
    Image.fromarray(SQUARE).save(tmp_path / "mask.png")
    found = []
    for number in range(9):
        image = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), (20 * number, 0, 0)).save(image)
        write_map(tmp_path / "maps" / f"{number}.npy", np.zeros((8, 8)))
        found.append(Sample(number // 3, image, f"{number}.npy", tmp_path / "mask.png"))
    write_json(tmp_path / "maps" / MANIFEST, {})
    return found


def test_the_sheet_shows_the_first_images_of_each_class(samples, tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_maps.analysis.outlined_sheet.IMAGES", 5)
    sheet = outlined_sheet(samples, MapFolder(tmp_path / "maps"))
    assert sheet.size == (COLUMNS * (2 * TILE + SEAM + GAP) + GAP, 2 * (TILE + GAP) + GAP)
    corners = [(GAP + column * (2 * TILE + SEAM + GAP), GAP) for column in range(COLUMNS)] + [(GAP, 2 * GAP + TILE)]
    assert [sheet.getpixel(corner)[0] // 20 for corner in corners] == [0, 1, 3, 4, 6]  # two, two and one of a class


def test_the_outline_runs_around_the_mask_alone(tmp_path):
    Image.fromarray(SQUARE).save(tmp_path / "mask.png")
    ring = np.asarray(outline(tmp_path / "mask.png"))
    edge = TILE // 4  # of the square, 16 of 64 pixels
    assert ring.shape == (TILE, TILE)
    assert ring[TILE // 2, edge - 2 : edge].max() > 200
    assert ring[TILE // 2, edge + 4 : -edge - 4].max() == ring[: edge - 6].max() == 0
