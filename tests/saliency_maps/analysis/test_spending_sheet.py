"""What the sheet says about each image."""

import numpy as np
from PIL import Image
from torchvision.transforms import v2

from saliency_maps.analysis.objects import Box
from saliency_maps.analysis.spending_sheet import Sample, caption, in_view

SAMPLE = Sample("crane", None, 1234, Image.new("RGB", (8, 8)), (), np.zeros((2, 2)), np.zeros((2, 2)))


def test_a_mistake_is_named():
    assert caption(SAMPLE) == ("crane", " · 1,234 bytes")
    assert caption(SAMPLE._replace(mistaken_for="crane")) == ("crane", ", taken for crane · 1,234 bytes")


def test_the_picture_is_what_the_network_sees_with_the_boxes_in_it():
    image = Image.new("RGB", (400, 300), "red")
    image.paste("blue", (0, 0, 80, 300))  # outside of the crop
    image.paste("green", (200, 100, 240, 140))
    transform = v2.Compose([v2.Resize(150, v2.InterpolationMode.NEAREST), v2.CenterCrop((120, 100)), v2.ToImage()])
    picture, (box,) = in_view(transform, image, [Box(200, 100, 239, 139), Box(0, 0, 79, 299)])
    assert picture.size == (100, 120) and box == Box(50, 35, 69, 54)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert [picture.getpixel(corner) for corner in ((50, 35), (69, 54))] == [(0, 128, 0)] * 2
    assert picture.getpixel((49, 35)) == picture.getpixel((70, 54)) == (255, 0, 0)
    assert in_view(v2.Compose([v2.ToImage()]), image, []) == (image, [])
