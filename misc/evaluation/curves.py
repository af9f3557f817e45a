"""Rate-accuracy curves: Pareto frontier, bytes at an accuracy, BD-rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

LEAST_OVERLAP = 1.0  # points of top-1; over less, a BD-rate would rest on a handful of images


class Point(NamedTuple):
    """One setting of a method: mean bytes per image and top-1 in percent."""

    bytes_per_image: float
    top1: float


class BDRate(NamedTuple):
    """A BD-rate (Bjontegaard delta of the rate) and the range of accuracy it is taken over.

    Attributes:
        percent: mean change of the rate at equal accuracy; -60 means 60 % fewer bytes than the anchor.
        low: lowest top-1 that both curves cover, percent.
        high: highest top-1 that both curves cover, percent.
    """

    percent: float
    low: float
    high: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no cheaper point equals or beats, by rising rate and strictly rising accuracy."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes_per_image, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def bytes_at(points: Sequence[Point], top1: float) -> float | None:
    """Return the bytes per image at which a curve reaches an accuracy; None outside of the curve's range.

    Between the points of the `frontier`, the logarithm of the bytes is a monotone cubic of top-1 (PCHIP).

    Args:
        points: all of one method, in any order.
        top1: accuracy in percent.
    """
    curve = frontier(points)
    if not curve or not curve[0].top1 <= top1 <= curve[-1].top1:
        return None
    return curve[0].bytes_per_image if len(curve) == 1 else math.exp(float(_log_bytes(curve)(top1)))


def bd_rate(anchor: Sequence[Point], points: Sequence[Point]) -> BDRate | None:
    """Return the BD-rate of `points` against `anchor`, over the accuracies that both curves cover.

    G. Bjontegaard, VCEG-M33 (2001), with top-1 in place of PSNR, and PCHIP in place of one cubic, as JVET does.
    None where the curves share less than one point of top-1, or a `frontier` has fewer than two points.
    """
    curves = frontier(anchor), frontier(points)
    if min(map(len, curves)) < 2:
        return None
    low, high = max(curve[0].top1 for curve in curves), min(curve[-1].top1 for curve in curves)
    if high - low < LEAST_OVERLAP:
        return None
    before, after = (_log_bytes(curve).integrate(low, high) / (high - low) for curve in curves)
    return BDRate(100 * math.expm1(after - before), low, high)


def _log_bytes(curve: Sequence[Point]) -> PchipInterpolator:
    sizes, accuracies = np.array(curve).T
    return PchipInterpolator(accuracies, np.log(sizes))
