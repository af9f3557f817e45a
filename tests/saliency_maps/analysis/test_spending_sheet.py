"""What the sheet says about each image."""

import numpy as np
from PIL import Image

from saliency_maps.analysis.spending_sheet import Sample, caption

SAMPLE = Sample("crane", None, 1234, Image.new("RGB", (8, 8)), (), np.zeros((2, 2)), np.zeros((2, 2)))


def test_a_mistake_is_named():
    assert caption(SAMPLE) == ("crane", " · 1,234 bytes")
    assert caption(SAMPLE._replace(mistaken_for="crane")) == ("crane", ", taken for crane · 1,234 bytes")
