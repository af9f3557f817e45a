"""Methods whose runs begin with the same weights, compared with one of them, the reference, seed by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from misc.evaluation.curves import Point
from misc.evaluation.intervals import margin_of
from misc.sweeps.table import NOT_RUN, SweepRow, tested_students

FEWEST_SEEDS = 3
RULE = (
    "Means ± standard deviations over seeds, in brackets how many. Each pair of runs begins with the same weights and "
    "has the same seed. Per seed, straight lines of top-1 over the logarithm of the bytes are compared over the bytes "
    "that both span; bytes at equal top-1 follow by the mean slope of the first row's lines, whose own spread is left "
    "out. A difference is shown where the 95 % interval of the mean (Student's t over seeds, for each row by itself) "
    "leaves zero out; the sentence's intervals are these."
)
Start = tuple[str | None, float | None]  # the run that another begins with, and the other's lmbda


class Estimate(NamedTuple):
    """The mean over seeds, their standard deviation (None for a single seed) and their number."""

    mean: float
    deviation: float | None
    seeds: int

    @property
    def margin(self) -> float | None:
        """Half the width of the mean's 95 % confidence interval, by Student's t; None for a single seed."""
        if self.deviation is None:
            return None
        return margin_of(self.deviation, self.seeds)

    @property
    def sign(self) -> int | None:
        """1 or -1 if the interval lies above or below zero, 0 if it contains zero; None for fewer than 3 seeds."""
        if self.seeds < FEWEST_SEEDS:
            return None
        return 0 if abs(self.mean) <= self.margin else int(math.copysign(1, self.mean))


class Comparison(NamedTuple):
    """A method compared with the reference.

    Attributes:
        method: name.
        means: bytes per image and top-1 in percent by lmbda, over the runs it begins with; None if none was run.
        pairs: number of seeds for which both methods have a curve.
        values: difference in top-1 at equal bytes, in points, for each such seed whose curves overlap in bytes.
        top1: estimate from these values; None if there are none.
        rate: difference in bytes at equal top-1, in percent; None also if the slopes are too flat to tell.
    """

    method: str
    means: dict[float | None, tuple[Estimate, Estimate] | None]
    pairs: int
    values: list[float]
    top1: Estimate | None
    rate: Estimate | None


def comparisons(rows: Sequence[SweepRow], reference: str | None) -> list[Comparison]:
    """Compare methods that begin with the same runs' weights with the reference.

    A pair of curves, one of the reference and one of the other method, has the seed of the runs that both begin with.
    Its points are those for which both methods have the same beginning and lmbda; runs of a method in which both are
    equal are averaged.

    Returns:
        The reference and then each method; [] if fewer than two of them were run.
    """
    if reference is None:
        return []
    sources = _beginnings(rows, reference)
    rows_of: dict[str, list[SweepRow]] = {reference: []}
    for row in rows:
        if row.begins_with in sources:
            rows_of.setdefault(row.method, []).append(row)
    if sum(map(bool, map(tested_students, rows_of.values()))) < 2:
        return []
    seeds = {row.run: row.seed for row in rows if row.run in sources}
    return [_comparison(name, own, rows_of[reference], seeds) for name, own in rows_of.items()]


def without_compared(rows: Sequence[SweepRow], reference: str | None) -> list[SweepRow]:
    """Return the rows without the methods that `comparisons` compares, and without those they begin with."""
    sources = _beginnings(rows, reference)
    compared = {row.method for row in rows if row.run in sources or row.begins_with in sources}
    return [row for row in rows if row.method not in compared]


def top1_difference(reference: Sequence[Point], points: Sequence[Point]) -> float | None:
    """Return how far a curve lies above the reference's at equal bytes, in points of top-1; None without overlap.

    Each curve is a straight line of top-1 over the logarithm of the bytes, fitted by least squares. Noise can make the
    more expensive of two neighbours the worse one; a line tolerates that, an interpolation of bytes over accuracy does
    not. The mean difference over the bytes that both curves span is, for lines, the difference in the middle of the
    span: nothing is extrapolated.
    """
    (low, high), (other_low, other_high) = (_span(curve) for curve in (reference, points))
    low, high = max(low, other_low), min(high, other_high)
    if low >= high:
        return None
    before, after = (np.polyval(_line(curve), (low + high) / 2) for curve in (reference, points))
    return float(after - before)


def rate_differences(top1_differences: Sequence[float], references: Sequence[Sequence[Point]]) -> list[float]:
    """Convert differences in top-1 to differences in bytes at equal top-1, in percent: -10 means 10 % fewer bytes.

    The conversion uses the mean slope of the reference's curves, as that of a single seed may be almost flat.

    Args:
        top1_differences: in points.
        references: curves of the reference, one per seed.

    Returns:
        One value per difference; [] if there is no curve, if one does not rise, or if a difference would amount to more
        than a factor of ten in bytes, for which the slope is no reliable conversion.
    """
    slopes = [_line(curve)[0] for curve in references]
    if not slopes or min(slopes) <= 0:
        return []
    logarithms = [-difference / statistics.mean(slopes) for difference in top1_differences]
    return [100 * math.expm1(each) for each in logarithms] if max(map(abs, logarithms)) <= math.log(10) else []


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the estimate from one value per seed; None if there is no value."""
    if not values:
        return None
    return Estimate(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _beginnings(rows: Sequence[SweepRow], method: str | None) -> set[str]:
    return {row.begins_with for row in rows if row.method == method and row.begins_with is not None}


def _comparison(
    name: str, own: Sequence[SweepRow], references: Sequence[SweepRow], seeds: Mapping[str, int]
) -> Comparison:
    means = {}
    for value in dict.fromkeys(row.lmbda for row in references):
        points = [point for (_, its), point in _points(own).items() if its == value]
        means[value] = tuple(map(estimate, zip(*points, strict=True))) if points else None
    pairs = _pairs(_points(references), _points(own), seeds)
    differences = [(top1_difference(*pair), pair[0]) for pair in pairs]
    compared = [(difference, curve) for difference, curve in differences if difference is not None]
    values = [difference for difference, _ in compared]
    rates = rate_differences(values, [curve for _, curve in compared])
    return Comparison(name, means, len(pairs), values, estimate(values), estimate(rates))


def _points(rows: Sequence[SweepRow]) -> dict[Start, Point]:
    points: dict[Start, list[Point]] = {}
    for row in tested_students(rows):
        points.setdefault((row.begins_with, row.lmbda), []).append(row.point)
    return {start: Point(*map(statistics.mean, zip(*its, strict=True))) for start, its in points.items()}


def _pairs(
    reference: Mapping[Start, Point], points: Mapping[Start, Point], seeds: Mapping[str, int]
) -> list[tuple[list[Point], list[Point]]]:
    """Return the curves of both methods for each seed with at least two common points."""
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


# ---------------------------------------------------------------------------------------------------------------------
# Table and conclusion
# ---------------------------------------------------------------------------------------------------------------------


def paired_table(methods: Sequence[Comparison]) -> list[list[str]]:
    """Return a header and one row per method, the reference first: means, then differences from the reference."""
    header = [column for lmbda in methods[0].means for column in (f"bytes, lmbda {lmbda}", f"top-1 %, lmbda {lmbda}")]
    table = [["", *header, "top-1 at equal bytes, points", "bytes at equal top-1, %"]]
    for number, method in enumerate(methods):
        means = [cell for pair in method.means.values() for cell in _mean_cells(pair)]
        table.append([method.method, *means, *(_difference_cells(method) if number else ("", ""))])
    return table


def _mean_cells(means: tuple[Estimate, Estimate] | None) -> tuple[str, str]:
    if means is None:
        return NOT_RUN, NOT_RUN
    size, top1 = means
    return f"{size.mean:,.1f}", _with_spread(top1, ".2f")


def _difference_cells(method: Comparison) -> tuple[str, str]:
    if not method.pairs:
        return NOT_RUN, NOT_RUN
    if method.top1 is None:
        return "no bytes in common", ""
    rate = _with_spread(method.rate, "+.1f") if method.rate else "not determined"
    return _with_spread(method.top1, "+.2f"), rate


def _with_spread(estimate: Estimate, form: str) -> str:
    """Return `mean ± standard deviation (seeds)`, without the deviation for a single seed."""
    spread = "" if estimate.deviation is None else f" ± {estimate.deviation:{form.lstrip('+')}}"
    return f"{estimate.mean:{form}}{spread} ({estimate.seeds})"


def _intervals(method: Comparison) -> str:
    """Return the confidence intervals of a method's differences in brackets; empty for fewer than 3 seeds."""
    if method.top1 is None or method.top1.sign is None:
        return ""
    rate = f"; bytes {_interval(method.rate)} %" if method.rate else ""
    return f" ({_interval(method.top1)} points{rate})"


def _interval(difference: Estimate) -> str:
    return f"{difference.mean - difference.margin:+z.1f} to {difference.mean + difference.margin:+z.1f}"


def conclusion(methods: Sequence[Comparison]) -> str:
    """Return a sentence on which methods' top-1 differs from the reference's at equal bytes, with the intervals."""
    reference, *others = methods
    kinds = {1: "higher with", -1: "lower with", 0: "not shown to differ with", None: "known of too few seeds with"}
    found: dict[str, list[str]] = {text: [] for text in (*kinds.values(), "not compared with")}
    for other in others:
        kind = kinds[other.top1.sign] if other.top1 else "not compared with"
        found[kind].append(f'"{other.method}"{_intervals(other)}')
    said = "; ".join(f"{text} {', '.join(names)}" for text, names in found.items() if names)
    return f'At equal bytes and against "{reference.method}", top-1 is {said}.'
