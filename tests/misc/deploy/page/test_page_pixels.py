"""The page's transform equals torchvision's on Pillow images, float by float."""

import json
from itertools import product

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.misc.deploy.page.conftest import PILLOW_13

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZES = [
    *[(64, 64), (63, 64), (1, 1), (1, 7), (30, 20), (100, 80), (640, 480), (480, 640), (65, 66), (67, 64), (257, 255)],
    *[(700, 1000), (1000, 700), (301, 300), (40, 3000), (50, 100), (200, 400), (602, 301)],
]
TALL = [(50, 101), (300, 900), (200, 600), (33, 3000), (300, 601)]
BILINEAR, BICUBIC = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC
# Resize and its interpolation, height and width of CenterCrop.
CROPS = [
    *[(64, BILINEAR, 64, 64), (None, BILINEAR, 64, 64), (256, BILINEAR, 224, 301)],
    (224, BICUBIC, 224, 224),
]
# One side grows: the order of the passes differs in earlier releases where it is the width.
PAIRS = [(64, 64), (80, 60), (30, 30)] + [(70, 200), (80, 90)] * PILLOW_13
CASES = [*product(SIZES + TALL * PILLOW_13, CROPS), *product(PAIRS, [([70, 90], BILINEAR, 64, 64)])]


def steps_of(size: int | list[int] | None, interpolation: v2.InterpolationMode, height: int, width: int) -> list[dict]:
    return [
        *([] if size is None else [{"op": "resize", "size": size, "interpolation": interpolation.value}]),
        {"op": "center_crop", "height": height, "width": width},
        {"op": "scale", "factor": float(np.float32(1 / 255))},
        {"op": "normalize", "mean": MEAN, "std": STD},
    ]


def transform_of(
    size: int | list[int] | None, interpolation: v2.InterpolationMode, height: int, width: int
) -> v2.Compose:
    resize = [] if size is None else [v2.Resize(size, interpolation)]
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*resize, v2.CenterCrop((height, width)), *to_tensor])


def test_transform(node, page, tmp_path):
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for number, (size, crop) in enumerate(CASES):
        rgba = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        file = tmp_path / str(number)
        file.write_bytes(rgba.tobytes())
        cases.append({"width": size[0], "height": size[1], "file": str(file), "transform": steps_of(*crop)})
        expected.append(transform_of(*crop)(Image.fromarray(rgba[..., :3])).numpy())
    (tmp_path / "list.json").write_text(json.dumps(cases))
    node("transform_pictures.mjs", page, tmp_path / "list.json")
    for case, values in zip(cases, expected, strict=True):
        actual = np.fromfile(f"{case['file']}.out", np.float32).reshape(values.shape)
        np.testing.assert_array_equal(actual, values, err_msg=str(case))
