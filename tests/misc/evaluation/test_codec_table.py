"""The file of codecs, and the bytes that an accuracy needs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc.errors import UserError
from misc.evaluation.codec_table import (
    CodecPoint,
    by_codec,
    bytes_for_accuracy,
    check_same_test,
    read_points,
    summary,
    write_points,
)

accuracies = st.integers(0, 1000).map(lambda hits: hits / 10)  # of a thousand images, percent


def curve(*pairs: tuple[float, float]) -> list[CodecPoint]:
    return [
        CodecPoint("JPEG", 1, size, size / 1024, size / 512, top1, 100.0, 95.0, 10, 2.0, 3.0) for size, top1 in pairs
    ]


def test_between_points_accuracy_is_linear_in_log_bytes():
    points = curve((100, 20.0), (400, 60.0))
    assert bytes_for_accuracy(points, 40.0) == pytest.approx(200)
    assert bytes_for_accuracy(points, 60.0) == pytest.approx(400)
    assert bytes_for_accuracy(points[::-1], 40.0) == pytest.approx(200)


def test_points_that_a_smaller_file_beats_do_not_count():
    points = curve((100, 50.0), (200, 40.0), (400, 90.0), (800, 70.0), (1600, 95.0))
    assert bytes_for_accuracy(points, 45.0) == pytest.approx(100)
    assert 100 < bytes_for_accuracy(points, 80.0) < bytes_for_accuracy(points, 90.0) == pytest.approx(400)
    assert 400 < bytes_for_accuracy(points, 92.5) < bytes_for_accuracy(points, 95.0) == pytest.approx(1600)


def test_an_accuracy_below_the_curve_costs_its_smallest_file_and_one_above_has_no_size():
    points = curve((100, 50.0), (200, 60.0))
    assert bytes_for_accuracy(points, 10.0) == pytest.approx(100)
    assert bytes_for_accuracy(points, 60.1) is None
    assert bytes_for_accuracy([], 10.0) is None


@given(
    st.lists(st.tuples(st.floats(1, 1e6), accuracies), min_size=1, max_size=8),
    accuracies,
    accuracies,
)
def test_more_accuracy_never_costs_fewer_bytes(pairs, first, second):
    low, high = (bytes_for_accuracy(curve(*pairs), top1) or math.inf for top1 in sorted((first, second)))
    assert low <= high * (1 + 1e-9)


def test_points_survive_the_file(tmp_path):
    points = [*curve((512.0, 20.25)), CodecPoint("WebP", 0, 50.0, 0.05, 0.1, 10.0, 60.0, 95.0, 10, 2.0, 3.0)]
    write_points(tmp_path / "codecs.csv", points)
    assert by_codec(read_points(tmp_path / "codecs.csv")) == {"JPEG": points[:1], "WebP": points[1:]}


def test_codecs_of_another_test_are_refused():
    points = curve((512.0, 20.0))
    check_same_test(points, 95.06, 10)  # an image of a thousand
    with pytest.raises(UserError, match=r"of 95.00 % top-1 on 10 images, the students with one of 90.00 % on 10"):
        check_same_test(points, 90.0, 10)
    with pytest.raises(UserError, match=r"on 10 images, the students with one of 95.00 % on 20"):
        check_same_test(points, 95.0, 20)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no codec file at"), ("a,b\n1,2\n", "it has no column 'codec'"), ("", "has no rows")]
)
def test_a_codec_file_that_is_none_is_named(tmp_path, content, said):
    path = tmp_path / "codecs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_points(path)


def test_the_summary_has_the_ends_of_each_curve():
    points = [
        *curve((512.0, 20.25), (700.0, 30.0), (1024.0, 70.5)),
        CodecPoint("AVIF", 7, 50, 0.05, 0.1, 10, 60, 95, 10, 2, 3),
    ]
    assert summary(points).splitlines() == [
        "  JPEG     512 to  1,024 bytes/image, top-1 20.25 to 70.50 %  (quality 1 to 1)",
        "  AVIF      50 to     50 bytes/image, top-1 10.00 to 10.00 %  (quality 7 to 7)",
    ]
