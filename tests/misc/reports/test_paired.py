"""Differences between methods whose runs begin with the same weights, by hand."""

import math

import pytest

from misc.evaluation.curves import Point
from misc.reports.paired import (
    Estimate,
    comparisons,
    conclusion,
    estimate,
    paired_table,
    rate_differences,
    top1_difference,
    without_compared,
)
from misc.sweeps.table import SweepRow

REFERENCE = [Point(100, 60), Point(200, 64)]  # 4 points for twice the bytes


def row_of(run: str, method: str, begins_with: str | None, lmbda: float, seed: int, point: Point | None) -> SweepRow:
    row = SweepRow(run, method, "a.yaml", "", begins_with, lmbda, seed)
    return row._replace(images=9, sent_bytes=point.bytes_per_image, top1=point.top1) if point else row


def rows_of(method: str, points: dict[tuple[float, int], Point | None]) -> list[SweepRow]:
    """Return rows by (lmbda, seed of the beginning); None was not run."""
    return [
        row_of(f"{method}-{value}-{seed}", method, f"first-seed{seed}", value, seed, point)
        for (value, seed), point in points.items()
    ]


def beginnings(seeds: int) -> list[SweepRow]:
    return [row_of(f"first-seed{seed}", "first", None, 0.2, seed, None) for seed in range(seeds)]


def curve(seeds: int, shift: float = 0.0) -> dict[tuple[float, int], Point]:
    """Return two points per seed: every seed has curves of its own."""
    points = {}
    for seed in range(seeds):
        points[0.1, seed] = Point(200 + 10 * seed, 64 + seed**2 + shift)
        points[0.2, seed] = Point(100 + 7 * seed, 60 - seed + shift)
    return points


@pytest.mark.parametrize(
    ("points", "difference"),
    [
        ([Point(100, 61), Point(200, 67)], 2),  # 64 and 62 in the middle
        ([Point(200, 60), Point(100, 64)], 0),  # a curve that falls
        ([Point(100 * 2**0.5, 62), Point(200 * 2**0.5, 66)], 0),  # the same line further on
        ([Point(100 * 2**0.5, 62), Point(200 * 2**0.5, 62)], -1),  # 62 and 63 at 100 * 2 ** 0.75, shared from 0.5 to 1
        ([Point(50, 60), Point(100, 60)], None),
        ([Point(150, 60), Point(150, 61)], None),
    ],
)
def test_top1_at_equal_bytes_by_hand(points, difference):
    assert top1_difference(REFERENCE, points) == (None if difference is None else pytest.approx(difference, abs=1e-9))


def test_a_difference_in_top1_is_worth_bytes_by_the_mean_slope():
    steep = [Point(100, 60), Point(200, 72)]
    assert rate_differences([4, 0], [REFERENCE]) == pytest.approx([-50, 0])
    assert rate_differences([8], [REFERENCE, steep]) == pytest.approx([-50])
    assert rate_differences([1], [REFERENCE, [*REFERENCE[:1], Point(200, 60)]]) == rate_differences([], []) == []


@pytest.mark.parametrize(
    ("values", "sign"),
    [([1.0, 2.0, 3.0], 0), ([1.9, 2.0, 2.1], 1), ([-1.9, -2.0, -2.1], -1), ([0.0] * 3, 0), ([1.0, 1.0], None)],
)
def test_a_mean_differs_from_zero_beyond_its_interval(values, sign):
    assert estimate(values).sign == sign


def test_an_estimate_by_hand():
    assert estimate([]) is None
    assert estimate([5.0]) == Estimate(5, None, 1)
    assert estimate([1.0, 2.0, 3.0]) == (2, 1, 3)
    assert estimate([1.0, 2.0, 3.0]).margin == pytest.approx(4.302653 / math.sqrt(3))  # t of two degrees of freedom


def test_a_method_that_is_the_reference_one_point_higher_is_just_that():
    points = curve(3)
    rows = beginnings(3) + rows_of("none", points) + rows_of("higher", curve(3, 1.0)) + rows_of("same", points)
    none, higher, same = comparisons(rows, "none")
    assert [(other.top1.mean, other.top1.deviation) for other in (none, higher, same)] == [
        pytest.approx(expected, abs=1e-9) for expected in ((0, 0), (1, 0), (0, 0))
    ]
    slope = sum((4 + seed**2 + seed) / math.log((200 + 10 * seed) / (100 + 7 * seed)) for seed in range(3)) / 3
    assert higher.rate.mean == pytest.approx(100 * math.expm1(-1 / slope))
    assert higher.means[0.1][1] == (pytest.approx(65 + 5 / 3), pytest.approx(estimate([64.0, 65, 68]).deviation), 3)
    assert conclusion([none, higher, same]) == (
        'At equal bytes and against "none", top-1 is higher with "higher" (+1.0 to +1.0 points; '
        f"bytes {higher.rate.mean:+.1f} to {higher.rate.mean:+.1f} %); "
        'not shown to differ with "same" (+0.0 to +0.0 points; bytes +0.0 to +0.0 %).'
    )


def test_what_is_missing_is_not_run_and_one_seed_has_no_spread():
    points, absent = curve(2), dict.fromkeys(curve(2))
    one = {**absent, (0.1, 0): Point(200, 66), (0.2, 0): Point(100, 62)}
    apart = {key: Point(point.bytes_per_image * 9, point.top1) for key, point in points.items()}
    rows = beginnings(2) + rows_of("none", points) + rows_of("one", one) + rows_of("absent", absent)
    half = {**absent, (0.1, 1): Point(200, 66)}
    found = comparisons(rows + rows_of("half", half) + rows_of("apart", apart), "none")
    header, *cells = paired_table(found)
    assert header[1:5] == ["bytes, lmbda 0.1", "top-1 %, lmbda 0.1", "bytes, lmbda 0.2", "top-1 %, lmbda 0.2"]
    assert cells[0][1:] == ["205.0", "64.50 ± 0.71 (2)", "103.5", "59.50 ± 0.71 (2)", "", ""]
    assert cells[1][1:6] == ["200.0", "66.00 (1)", "100.0", "62.00 (1)", "+2.00 (1)"]
    assert cells[2][1:] == ["not run"] * 6
    assert cells[3][1:] == ["200.0", "66.00 (1)", *["not run"] * 4]
    assert cells[4][5:] == ["no bytes in common", ""]
    assert conclusion(found) == (
        'At equal bytes and against "none", top-1 is known of too few seeds with "one"; '
        'not compared with "absent", "half", "apart".'
    )


def test_nothing_to_compare():
    absent = dict.fromkeys(curve(2))
    assert comparisons(beginnings(2) + rows_of("none", absent) + rows_of("other", absent), "none") == []
    assert comparisons(beginnings(2) + rows_of("none", curve(2)), "none") == []
    assert comparisons(beginnings(2) + rows_of("none", curve(2)) + rows_of("other", absent), "none") == []
    assert comparisons(rows_of("other", curve(2)), "none") == []


def test_several_runs_from_one_beginning_are_averaged():
    rows = beginnings(3) + rows_of("none", curve(3)) + rows_of("other", curve(3, -1)) + rows_of("other", curve(3, 3))
    _, other = comparisons(rows, "none")
    assert other.values == pytest.approx([1, 1, 1]) and other.means[0.1][1].seeds == 3


def test_the_points_of_a_seed_may_have_beginnings_of_their_own():
    rows = [
        row._replace(begins_with=row.begins_with.replace("-", f"-{row.lmbda}-"))
        for row in rows_of("none", curve(3)) + rows_of("higher", curve(3, 1.0))
    ]
    firsts = [row._replace(run=row.run.replace("-", f"-{value}-")) for value in (0.1, 0.2) for row in beginnings(3)]
    assert comparisons(firsts + rows, "none")[1].values == pytest.approx([1, 1, 1])


def test_a_slope_close_to_flat_is_no_exchange():
    flat = [Point(100, 60), Point(200, 60.001)]
    assert rate_differences([-1], [flat]) == []


def test_two_seeds_are_too_few_for_a_verdict():
    assert estimate([0.1 + 0.2, 0.3]).sign is None and estimate([1.0, 1.1, 1.2]).sign == 1


def test_what_is_compared_and_what_it_begins_with_are_no_curves():
    (row,) = rows_of("tuned", {(0.3, 0): Point(90, 66)})
    tuned = [row._replace(begins_with="other-seed0")]
    rows = beginnings(1) + rows_of("none", curve(1)) + rows_of("other", curve(1)) + tuned
    assert without_compared(rows, "none") == tuned
    assert without_compared(rows, "missing") == rows
