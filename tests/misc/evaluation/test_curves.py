"""Rate-accuracy curves: by hand, by properties of the BD-rate, and against the `bjontegaard` package."""

import bjontegaard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc.evaluation.curves import Point, bd_rate, bytes_at, frontier

CURVE = [Point(100, 50), Point(200, 60), Point(400, 65), Point(800, 68)]
BENT = [Point(90, 51), Point(110, 63), Point(500, 64.5), Point(600, 70)]  # slopes of 1, 10 and 1 by turns
factors = st.floats(0.1, 10)


def scaled(factor: float) -> list[Point]:
    return [Point(point.bytes_per_image * factor, point.top1) for point in CURVE]


def test_points_that_a_cheaper_one_beats_are_left_out():
    assert frontier([Point(3, 5), Point(1, 2), Point(2, 5), Point(4, 4), Point(2, 3)]) == [Point(1, 2), Point(2, 5)]


@given(factors)
def test_a_curve_of_other_rates_at_the_same_accuracies_has_their_ratio_as_its_bd_rate(factor):
    found = bd_rate(CURVE, scaled(factor))
    assert found.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (found.low, found.high) == (50, 68)


@given(factors)
def test_bd_rates_in_both_directions_are_each_others_inverse(factor):
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


@pytest.mark.parametrize(("anchor", "points"), [(CURVE, BENT), (BENT, CURVE), (CURVE[:3], BENT)])
def test_the_bd_rate_is_that_of_the_bjontegaard_package(anchor, points):
    (sizes, accuracies), (other_sizes, other_accuracies) = (zip(*curve, strict=True) for curve in (anchor, points))

    def oracle(method: str) -> float:
        curves = (sizes, accuracies, other_sizes, other_accuracies)
        return bjontegaard.bd_rate(*curves, method=method, require_matching_points=False, min_overlap=0)

    assert bd_rate(anchor, points).percent == pytest.approx(oracle("pchip"), rel=1e-9)
    assert abs(oracle("pchip") - oracle("akima")) > 1  # the curves tell the interpolations apart


def test_between_points_the_cubic_has_pchips_slopes():
    # Logarithms to base 2 over top-1 rise by 1 over 10 points, then by 2 over 4. Fritsch and Butland's slope in the
    # middle is the weighted harmonic mean 42 / (18 / 0.1 + 24 / 0.5); the one-sided slope at the end is
    # ((2 * 4 + 10) * 0.5 - 4 * 0.1) / 14. Half way, Hermite's cubic is the mean of the ends plus 4 / 8 of the slopes'
    # difference.
    middle, end = 42 / 228, 8.6 / 14
    curve = [Point(100, 50), Point(200, 60), Point(800, 64)]
    assert bytes_at(curve, 62) == pytest.approx(100 * 2 ** (2 + 0.5 * (middle - end)))


@pytest.mark.parametrize("others", [[], [Point(1, 60)], [Point(1, 70), Point(2, 80)], [Point(1, 10), Point(2, 50.9)]])
def test_no_bd_rate_without_common_accuracies(others):
    assert bd_rate(CURVE, others) is None and bd_rate(others, CURVE) is None


def test_bytes_at_an_accuracy():
    assert bytes_at(CURVE, 60) == pytest.approx(200)
    assert 200 < bytes_at(CURVE, 62) < 400
    assert bytes_at(CURVE, 49.9) is None and bytes_at(CURVE, 68.1) is None
    assert bytes_at([], 50) is None and bytes_at([Point(7, 50)], 50) == 7
