"""Statistics of saliency maps, accumulated map by map in constant memory, and the spread of a sensitivity."""

import math

import numpy as np
from torch import Tensor

from misc.errors import UserError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP_SHARE = 0.1  # of positions
_BINS = 10_000  # of values in [0, 1]: quantiles are good to four decimals


class MapStatistics:
    """Running statistics of maps (h, w) in [0, 1]; no map is kept.

    Attributes:
        maps: number of maps.
        uniform: number of maps whose values are all equal.
    """

    def __init__(self) -> None:
        self.maps = self.uniform = 0
        self._values = self._sum = self._squares = self._top = self._entropy = 0.0
        self._histogram = np.zeros(_BINS, dtype=np.int64)

    def update(self, saliency: np.ndarray) -> bool:
        """Add a map; return whether it is uniform."""
        values = saliency.ravel().astype(np.float64)
        is_uniform = bool(values.min() == values.max())
        self.maps += 1
        self.uniform += is_uniform
        self._values += values.size
        self._sum += values.sum()
        self._squares += np.square(values).sum()
        self._histogram += np.bincount(np.clip(values * _BINS, 0, _BINS - 1).astype(np.int64), minlength=_BINS)
        self._top += top_share(values)
        self._entropy += relative_entropy(values)
        return is_uniform

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self._sum / self._values

    @property
    def std(self) -> float:
        """Standard deviation of all values."""
        return math.sqrt(max(0.0, self._squares / self._values - self.mean**2))

    def quantile(self, share: float) -> float:
        """Return the value that `share` of all values do not exceed."""
        index = int(np.searchsorted(np.cumsum(self._histogram), share * self._values))
        return (index + 0.5) / _BINS

    @property
    def top_share(self) -> float:
        """Mean over the maps of `top_share`."""
        return self._top / self.maps

    @property
    def relative_entropy(self) -> float:
        """Mean over the maps of `relative_entropy`."""
        return self._entropy / self.maps


def top_share(values: np.ndarray) -> float:
    """Return the share of a map's mass in the `TOP_SHARE` of its positions with the largest values.

    The number of positions is rounded. A uniform map gives about `TOP_SHARE`; a map of zeros counts as uniform.
    """
    count = max(1, round(TOP_SHARE * values.size))
    mass = values.sum()
    return float(np.partition(values, -count)[-count:].sum() / mass) if mass > 0 else count / values.size


def relative_entropy(values: np.ndarray) -> float:
    """Return the entropy of a map as a distribution over positions, relative to a uniform map's: 0 to 1.

    A map of zeros counts as uniform.
    """
    mass = values.sum()
    if mass <= 0 or values.size == 1:
        return 1.0
    shares = values[values > 0] / mass
    return float(-(shares * np.log(shares)).sum() / math.log(values.size))


def spread_table(elements: Tensor, tokens: Tensor) -> list[list[str]]:
    """Return header and rows: how widely the sensitivity varies over channels, positions and images.

    Args:
        elements: sensitivity, mean over the images, (C, H, W).
        tokens: sensitivity of each image, mean over the channels, (N, H, W).

    Raises:
        UserError: the sensitivity is zero throughout, as for a layer that does not reach the logits.
    """
    if not elements.any():
        raise UserError("the logits do not change with this layer: choose one before the classifier")
    weights = {
        "channels": elements.mean((1, 2)),
        "positions": elements.mean(0),
        "channels and positions": elements,
        "images": tokens.mean((1, 2)),
        "images and positions": tokens,
    }
    rows = [[name, f"{weight.numel():,}", *spread(weight.flatten().double())] for name, weight in weights.items()]
    return [["varying over", "weights", "least", "median", "greatest", "bits/element"], *rows]


def spread(weights: Tensor) -> list[str]:
    """Return least, median and greatest weight relative to the mean, and the bits (empty if a weight is zero)."""
    relative = weights / weights.mean()
    bits = f"{-0.5 * relative.log2().mean():z.3f}" if relative.min() > 0 else ""
    return [*(f"{value:.2f}" for value in (relative.min(), relative.median(), relative.max())), bits]
