"""Codecs: whole files, nothing of the source's metadata, and the bytes that an accuracy needs."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from misc.codecs import (
    CODECS,
    SETTINGS,
    CodecPoint,
    CodedImages,
    by_codec,
    bytes_for_accuracy,
    decode,
    encode,
    read_points,
    write_points,
)
from misc.errors import UserError
from misc.image_folder import ImageFolder


def curve(*pairs: tuple[float, float]) -> list[CodecPoint]:
    return [CodecPoint("JPEG", 1, size, size / 1024, size / 512, top1, 100.0, 10) for size, top1 in pairs]


@pytest.fixture
def photo() -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 90, np.uint8), np.tile(ramp[::-1], (48, 1))], 2)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("codec", "quality"), SETTINGS)
def test_a_round_trip_keeps_size_and_mode_and_roughly_the_picture(photo, codec, quality):
    decoded = decode(encode(photo, codec, quality))
    assert (decoded.size, decoded.mode) == (photo.size, "RGB")
    assert np.abs(np.asarray(decoded, float) - np.asarray(photo, float)).mean() < 40


@pytest.mark.parametrize("codec", CODECS)
def test_better_quality_is_larger(photo, codec):
    sizes = [len(encode(photo, codec, quality)) for quality in (codec.qualities[0], codec.qualities[-1])]
    assert sizes[0] < sizes[1]


def test_jpeg_halves_the_chroma_in_both_directions(photo):
    with Image.open(io.BytesIO(encode(photo, CODECS[0], 50))) as image:
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("codec", CODECS)
def test_metadata_of_the_source_is_not_counted(photo, codec):
    plain = encode(photo, codec, 20)
    photo.info = {"comment": b"x" * 500, "icc_profile": b"x" * 500, "exif": b"Exif\x00\x00" + b"x" * 500}
    assert encode(photo, codec, 20) == plain
    assert photo.info


def test_an_item_holds_every_setting_of_an_image(photo, tmp_path):
    (tmp_path / "ant").mkdir()
    photo.save(tmp_path / "ant" / "0.png")
    x, label, sizes = CodedImages(ImageFolder(tmp_path, pil_to_tensor))[0]
    assert x.shape == (len(SETTINGS), 3, 48, 64)
    assert label == 0
    assert sizes.tolist() == [len(encode(photo, *setting)) for setting in SETTINGS]
    assert torch.equal(x[-1], pil_to_tensor(decode(encode(photo, *SETTINGS[-1]))))


def test_between_points_accuracy_is_linear_in_log_bytes():
    points = curve((100, 20.0), (400, 60.0))
    assert bytes_for_accuracy(points, 40.0) == pytest.approx(200)
    assert bytes_for_accuracy(points, 60.0) == pytest.approx(400)
    assert bytes_for_accuracy(points[::-1], 40.0) == pytest.approx(200)


def test_the_first_crossing_of_a_curve_that_falls_again_counts():
    points = curve((100, 50.0), (200, 40.0), (400, 90.0), (800, 70.0), (1600, 95.0))
    assert bytes_for_accuracy(points, 45.0) == 100
    assert bytes_for_accuracy(points, 65.0) == pytest.approx(200 * math.sqrt(2))
    assert bytes_for_accuracy(points, 80.0) < 400
    assert bytes_for_accuracy(points, 92.5) > 800


def test_an_accuracy_below_the_curve_costs_its_smallest_file_and_one_above_has_no_size():
    points = curve((100, 50.0), (200, 60.0))
    assert bytes_for_accuracy(points, 10.0) == 100
    assert bytes_for_accuracy(points, 60.1) is None
    assert bytes_for_accuracy([], 10.0) is None


@given(
    st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 100)), min_size=1, max_size=8),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_more_accuracy_never_costs_fewer_bytes(pairs, first, second):
    low, high = (bytes_for_accuracy(curve(*pairs), top1) or math.inf for top1 in sorted((first, second)))
    assert low <= high * (1 + 1e-9)


def test_points_survive_the_file(tmp_path):
    points = [*curve((512.0, 20.25)), CodecPoint("WebP", 0, 50.0, 0.05, 0.1, 10.0, 60.0, 10)]
    write_points(tmp_path / "codecs.csv", points)
    assert by_codec(read_points(tmp_path / "codecs.csv")) == {"JPEG": points[:1], "WebP": points[1:]}


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no codec file at"), ("a,b\n1,2\n", "is no codec file"), ("", "has no rows")]
)
def test_a_codec_file_that_is_none_is_named(tmp_path, content, said):
    path = tmp_path / "codecs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_points(path)
