"""Rate-accuracy curves, against cases by hand and against properties of the delta."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc.evaluation.curves import Point, bd_rate, bytes_at, frontier

CURVE = [Point(100, 50), Point(200, 60), Point(400, 65), Point(800, 68)]
factors = st.floats(0.1, 10)


def scaled(factor: float) -> list[Point]:
    return [Point(point.bytes_per_image * factor, point.top1) for point in CURVE]


def test_points_that_a_cheaper_one_beats_are_left_out():
    assert frontier([Point(3, 5), Point(1, 2), Point(2, 5), Point(4, 4), Point(2, 3)]) == [Point(1, 2), Point(2, 5)]


@given(factors)
def test_a_curve_of_other_rates_at_the_same_accuracies_has_their_ratio_as_its_delta(factor):
    delta = bd_rate(CURVE, scaled(factor))
    assert delta.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (delta.low, delta.high) == (50, 68)


@given(factors)
def test_deltas_in_both_directions_are_each_others_inverse(factor):
    other = [Point(size * 1.1**number, top1) for number, (size, top1) in enumerate(scaled(factor))]
    there, back = bd_rate(CURVE, other), bd_rate(other, CURVE)
    assert (1 + there.percent / 100) * (1 + back.percent / 100) == pytest.approx(1)


def test_two_points_each_are_straight_lines_of_the_logarithm():
    anchor, points = [Point(100, 50), Point(400, 60)], [Point(100, 52), Point(200, 58)]
    between = np.linspace(52, 58, 1001)
    logarithms = [
        np.log(100) + (between - 50) / 10 * np.log(4),
        np.log(100) + (between - 52) / 6 * np.log(2),
    ]
    expected = 100 * np.expm1((logarithms[1] - logarithms[0]).mean())
    assert bd_rate(anchor, points).percent == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("others", [[], [Point(1, 60)], [Point(1, 70), Point(2, 80)], [Point(1, 10), Point(2, 50.9)]])
def test_no_delta_without_common_accuracies(others):
    assert bd_rate(CURVE, others) is None and bd_rate(others, CURVE) is None


def test_bytes_at_an_accuracy():
    assert bytes_at(CURVE, 60) == pytest.approx(200)
    assert 200 < bytes_at(CURVE, 62) < 400
    assert bytes_at(CURVE, 49.9) is None and bytes_at(CURVE, 68.1) is None
    assert bytes_at([], 50) is None and bytes_at([Point(7, 50)], 50) == 7
