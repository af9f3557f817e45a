import struct
from pathlib import Path

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
    with pytest.raises(UserError, match=r"is no data set: it has no class folders"):
        ImageFolder(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "photo.heic").touch()
    with pytest.raises(UserError, match=r"is no data set: no image in .*/cat \(\.jpg, "):
        ImageFolder(tmp_path)
    with pytest.raises(UserError, match=rf"is no data set: no image in {tmp_path} \(\.jpg, "):
        ImageFolder(tmp_path, labelled=False)


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


def test_without_labels_images_may_lie_anywhere(folder):
    Image.new("RGB", (16, 16)).save(folder / "top.png")
    (folder / "a" / "deep" / "deeper").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "a" / "deep" / "deeper" / "x.jpg")
    images = ImageFolder(folder, labelled=False)
    names = {Path(path).relative_to(folder).as_posix() for path, _ in images.samples}
    assert {"top.png", "a/0.jpg", "a/deep/deeper/x.jpg"} < names and len(images) == 8
    assert {label for _, label in images} == {-100} and images.num_classes is None


def test_labels_are_the_classifiers(folder, tmp_path):
    classes = tmp_path / "classes.yaml"
    classes.write_text("a: 4\nb: 2\n")
    images = ImageFolder(folder, classifier={"name": "resnet10t", "num_classes": 5}, class_map=classes)
    assert [label for _, label in images] == [4] * 3 + [2] * 3 and images.num_classes == 5
    assert [label for _, label in ImageFolder(folder)] == [0] * 3 + [1] * 3


def test_wnids_have_imagenets_indices_where_classes_are_missing(folder):
    for name, wnid in (("a", "n01443537"), ("b", "n15075141")):
        (folder / name).rename(folder / wnid)
    images = ImageFolder(folder, classifier={"name": "resnet10t"})
    assert [label for _, label in images] == [1] * 3 + [999] * 3
    (folder / "n01443537").rename(folder / "n01443536")
    with pytest.raises(UserError, match=r"'n01443536' is no wnid .* 'n01443537'"):
        ImageFolder(folder, classifier={"name": "resnet10t"})
