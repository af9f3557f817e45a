"""Routes to an accuracy, by hand."""

import pytest

from misc.evaluation.codec_table import CodecPoint
from misc.reports.link import Route, codec_routes


def point(size: float, top1: float, milliseconds: float) -> CodecPoint:
    return CodecPoint("JPEG", 1, size, size / 1024, 1, top1, 90, 70, 100, milliseconds, 2 * milliseconds)


def test_a_codecs_times_are_those_of_the_cheapest_quality_that_reaches_the_accuracy():
    dip = [point(100, 60, 1), point(380, 61, 9), point(400, 64, 2), point(800, 65, 3)]
    route = codec_routes({"JPEG": dip}, 63.5)["JPEG"]
    assert 300 < route.bytes_per_image < 400
    assert (route.encode_ms, route.decode_ms) == (2, 4)


def test_a_codec_that_never_gets_there_has_no_route():
    assert codec_routes({"JPEG": [point(100, 60, 1), point(200, 64, 1)]}, 64.1) == {}


def test_milliseconds_are_the_sum_of_the_three_parts():
    assert Route(125, 3, 4).milliseconds(0.1) == pytest.approx(3 + 10 + 4)
