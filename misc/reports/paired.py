"""Methods that begin with the same weights, compared with one of them seed by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from misc.evaluation.curves import Point
from misc.sweeps.table import Row, beginning, lmbda, point_of, tested

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
Start = tuple[str, str | None]  # the run that one begins with, and the lmbda with which it goes on


class Estimate(NamedTuple):
    """A mean over seeds, their standard deviation (None of one seed), and how many they are."""

    mean: float
    deviation: float | None
    seeds: int

    @property
    def margin(self) -> float | None:
        """Half the width of the mean's 95 % interval, by Student's t; None of one seed."""
        if self.deviation is None:
            return None
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.seeds - 1)) * self.deviation / math.sqrt(self.seeds)

    @property
    def sign(self) -> int | None:
        """1 or -1 where the interval lies above or below zero, 0 where it holds zero; None of fewer than 3 seeds."""
        if self.seeds < FEWEST_SEEDS:
            return None
        return 0 if abs(self.mean) <= self.margin else int(math.copysign(1, self.mean))


class Comparison(NamedTuple):
    """A method beside the reference.

    Attributes:
        method: its name.
        means: bytes per image and top-1 in percent, over the runs that it begins with, by lmbda; None of none.
        pairs: of how many seeds both have a curve.
        values: difference in top-1 at equal bytes, in points, of each of these seeds whose curves share bytes.
        top1: of these values; None if there are none.
        rate: difference in bytes at equal top-1, in percent; None too where it cannot be told.
    """

    method: str
    means: dict[str, tuple[Estimate, Estimate] | None]
    pairs: int
    values: list[float]
    top1: Estimate | None
    rate: Estimate | None


def comparisons(rows: Sequence[Row], reference: str) -> list[Comparison]:
    """Compares a method with those that begin with the same runs' weights; it is the first itself.

    A seed is that of the run that two runs begin with. Their curves are the points of those of its runs and those lmbda
    with which both methods went on; several runs of one method with both the same are averaged.

    Returns:
        A comparison for each method; [] where there is nothing to compare, or fewer than two of them were run.
    """
    sources = _beginnings(rows, reference)
    rows_of: dict[str, list[Row]] = {reference: []}
    for row in rows:
        if beginning(row) in sources:
            rows_of.setdefault(row["method"], []).append(row)
    if sum(map(bool, map(tested, rows_of.values()))) < 2:
        return []
    seeds = {row["run"]: row["seed"] for row in rows if row["run"] in sources}
    return [_comparison(name, own, rows_of[reference], seeds) for name, own in rows_of.items()]


def without_compared(rows: Sequence[Row], reference: str) -> list[Row]:
    """Returns the rows of methods that `comparisons` does not compare, nor begins with."""
    sources = _beginnings(rows, reference)
    compared = {row["method"] for row in rows if row["run"] in sources or beginning(row) in sources}
    return [row for row in rows if row["method"] not in compared]


def top1_difference(reference: Sequence[Point], points: Sequence[Point]) -> float | None:
    """Returns how far one curve lies above another at equal bytes, in points of top-1.

    A curve is a straight line of top-1 over the logarithm of the bytes, by least squares: through its points where they
    are two. Noise can make the more expensive of two neighbours the worse one, which a line bears, and an interpolation
    of bytes by accuracy does not. The difference is the mean over the bytes that both curves span, which for lines is
    that in the middle of them: nothing is extrapolated, and near its middle a line is known best.

    None where they share no bytes.
    """
    (low, high), (other_low, other_high) = (_span(curve) for curve in (reference, points))
    low, high = max(low, other_low), min(high, other_high)
    if low >= high:
        return None
    before, after = (np.polyval(_line(curve), (low + high) / 2) for curve in (reference, points))
    return float(after - before)


def rate_differences(top1_differences: Sequence[float], references: Sequence[Sequence[Point]]) -> list[float]:
    """Returns what differences in top-1 are worth in bytes, as percent: -10 means 10 % fewer at equal top-1.

    The exchange is the mean slope of the reference's curves, one per seed, as a single seed's may be close to flat.

    Args:
        top1_differences: in points.
        references: curves of the reference.

    Returns:
        One for each; [] where there is no curve, or one that does not rise, or where a difference would be worth more
        than ten times the bytes: there the slope is no reliable exchange.
    """
    slopes = [_line(curve)[0] for curve in references]
    if not slopes or min(slopes) <= 0:
        return []
    logarithms = [-difference / statistics.mean(slopes) for difference in top1_differences]
    return [100 * math.expm1(each) for each in logarithms] if max(map(abs, logarithms)) <= math.log(10) else []


def estimate(values: Sequence[float]) -> Estimate | None:
    """Returns mean and standard deviation of one value per seed; None of none."""
    if not values:
        return None
    return Estimate(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _beginnings(rows: Sequence[Row], method: str) -> set[str]:
    return {beginning(row) for row in rows if row["method"] == method} - {None}


def _comparison(name: str, own: Sequence[Row], references: Sequence[Row], seeds: Mapping[str, str]) -> Comparison:
    means = {}
    for value in dict.fromkeys(map(lmbda, references)):
        points = [point for (_, its), point in _points(own).items() if its == value]
        means[value] = tuple(map(estimate, zip(*points, strict=True))) if points else None
    pairs = _pairs(_points(references), _points(own), seeds)
    compared = [pair for pair in pairs if top1_difference(*pair) is not None]
    values = [top1_difference(*pair) for pair in compared]
    rates = rate_differences(values, [curve for curve, _ in compared])
    return Comparison(name, means, len(pairs), values, estimate(values), estimate(rates))


def _points(rows: Sequence[Row]) -> dict[Start, Point]:
    points: dict[Start, list[Point]] = {}
    for row in tested(rows):
        points.setdefault((beginning(row), lmbda(row)), []).append(point_of(row))
    return {start: Point(*map(statistics.mean, zip(*its, strict=True))) for start, its in points.items()}


def _pairs(
    reference: Mapping[Start, Point], points: Mapping[Start, Point], seeds: Mapping[str, str]
) -> list[tuple[list[Point], list[Point]]]:
    """Returns both methods' curves for each seed of which they have at least two points in common."""
    pairs = []
    for seed in dict.fromkeys(seeds.values()):
        shared = [start for start in reference if start in points and seeds.get(start[0]) == seed]
        if len(shared) > 1:
            pairs.append(([reference[start] for start in shared], [points[start] for start in shared]))
    return pairs


def _span(curve: Sequence[Point]) -> tuple[float, float]:
    logarithms = [math.log(point.bytes_per_image) for point in curve]
    return min(logarithms), max(logarithms)


def _line(curve: Sequence[Point]) -> np.ndarray:
    sizes, accuracies = np.array(curve).T
    return np.polyfit(np.log(sizes), accuracies, 1)
