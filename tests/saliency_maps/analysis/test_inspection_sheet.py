"""What is chosen and drawn for a sheet of maps."""

import numpy as np
from PIL import Image

from saliency_maps.analysis.drawing import in_colour
from saliency_maps.analysis.inspection_sheet import TILE, Sample, cell, chosen
from saliency_maps.analysis.sheets import SEAM
from saliency_maps.analysis.text import LINE

TRIPLE = 3 * TILE + 2 * SEAM


def test_a_choice_is_random_in_order_and_no_larger_than_all():
    samples = [Sample(f"a/{number:03d}.npy", None) for number in range(100)]
    few = chosen(samples, 10, seed=0)
    assert len(set(few)) == 10 and few == sorted(few) and few != samples[:10]
    assert chosen(samples, 1000, seed=0) == samples


def test_a_cell_keeps_the_shape_of_its_image(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 20), "red").save(tmp_path / "cat" / "1.png")
    saliency = np.array([[0.0, 1.0]], np.float32)
    drawing = cell(Sample("cat/1.npy", "cat/1.png"), saliency, tmp_path)
    assert drawing.size == (TRIPLE, LINE + TILE)
    middle = LINE + TILE // 2
    assert drawing.getpixel((5, middle)) == (255, 0, 0)
    assert drawing.getpixel((5, LINE + TILE // 4 - 2)) == drawing.getpixel((5, LINE + 1)) != (255, 0, 0)
    low, high = (in_colour(saliency).getpixel((x, 0)) for x in (0, 1))
    assert drawing.getpixel((TILE + SEAM + TILE // 2 - 2, middle)) == low
    assert drawing.getpixel((TILE + SEAM + TILE // 2 + 2, middle)) == high
