import struct

import numpy as np
import pytest
from PIL import Image

from misc.datasets.image_folder import ImageFolder, read_rgb
from misc.errors import UserError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.jpg")
    return tmp_path


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_all_modes_become_rgb(folder, mode):
    Image.new(mode, (16, 16)).save(folder / "a" / "extra.jpg")
    assert all(image.mode == "RGB" for image, _ in ImageFolder(folder))


def test_a_png_with_alpha_and_a_misnamed_file_are_read(folder):
    Image.new("RGBA", (16, 16)).save(folder / "a" / "alpha.png")
    Image.new("P", (16, 16)).save(folder / "a" / "png_inside.jpg", format="PNG")
    assert len(list(ImageFolder(folder))) == 8


def test_truncated_files_are_named_before_any_epoch(folder):
    for name in ("0", "1"):
        path = folder / "b" / f"{name}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"2 of 6 images are truncated or unreadable: .*0\.jpg, .*1\.jpg"):
        ImageFolder(folder)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no data set at"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no data set"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_of_sixteen_bits_the_upper_eight_count(tmp_path, name):
    values = np.array([[0, 255, 256], [40_000, 65_535, 513]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    image = read_rgb(tmp_path / name)
    assert image.mode == "RGB" and np.array_equal(np.asarray(image)[..., 0], values >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.full((4, 4), 1000, dtype)).save(tmp_path / "odd.tif")
    with pytest.raises(UserError, match=r"odd\.tif has pixels of 32 bits"):
        read_rgb(tmp_path / "odd.tif")


def test_a_line_that_a_transform_would_blow_up_is_refused(tmp_path):
    Image.new("L", (6000, 1)).save(tmp_path / "line.png")
    with pytest.raises(UserError, match=r"line\.png has 6000 x 1 pixels"):
        read_rgb(tmp_path / "line.png")


def test_a_format_that_pillow_does_not_implement_is_named(tmp_path):
    header = struct.pack("<7I44x2I4s20x20x", 124, 0, 4, 4, 0, 0, 0, 32, 4, b"none")
    (tmp_path / "texture.dds").write_bytes(b"DDS " + header)
    with pytest.raises(UserError, match=r"texture\.dds is truncated or not an image"):
        read_rgb(tmp_path / "texture.dds")
