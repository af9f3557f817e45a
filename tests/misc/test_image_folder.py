import numpy as np
import pytest
from PIL import Image

from misc.errors import UserError
from misc.image_folder import ImageFolder


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
