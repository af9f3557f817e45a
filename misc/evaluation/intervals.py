"""Confidence intervals of means."""

import math

from scipy import stats

CONFIDENCE = 0.95


def margin_of(deviation: float, number: int) -> float:
    """Return half the width of the 95 % confidence interval of a mean, by Student's t.

    Args:
        deviation: standard deviation of the values, with `number - 1` in the denominator.
        number: of values, at least 2.
    """
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * deviation / math.sqrt(number)
