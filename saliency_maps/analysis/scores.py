"""How well saliency maps find an object whose place is known."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

_TIE = 1e-6  # of values in [0, 1]; interpolating equal values rounds


class MapScores(NamedTuple):
    """Scores of maps against masks, means over images.

    Attributes:
        mass_ratio: share of a map's mass inside the mask, relative to the mask's share of the area; 1 for a uniform
            map, above 1 for one that prefers the object.
        pointing_game: images whose maximum lies inside the mask, percent.
        chance: the same for a random point: the mask's share of the area, percent.
        images: how many.
    """

    mass_ratio: float
    pointing_game: float
    chance: float
    images: int


def score_maps(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> MapScores:
    """Score (map, mask) pairs, one pair per image; see `score_map`."""
    scores = np.array([score_map(saliency, mask) for saliency, mask in pairs])
    if not len(scores):
        raise ValueError("no maps to score")
    mass_ratio, hits, chance = scores.mean(0)
    return MapScores(float(mass_ratio), 100 * float(hits), 100 * float(chance), len(scores))


def score_map(saliency: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """Score one map.

    Args:
        saliency: (h, w) in [0, 1]; resized bilinearly to the mask.
        mask: (H, W) bool, true on the object.

    Returns:
        Mass ratio; 1 if the maximum lies inside the mask, else 0 (of several maxima, the share inside, so that a
        uniform map scores chance); the mask's share of the area. A map of zeros counts as uniform.
    """
    area = float(mask.mean())
    if area == 0:
        raise ValueError("the mask is empty")
    full = resize_map(saliency, mask.shape)
    mass = float(full.sum(dtype=np.float64))
    inside = float(full[mask].sum(dtype=np.float64)) / mass if mass > 0 else area
    maxima = full >= full.max() - _TIE
    return inside / area, float(mask[maxima].mean()), area


def resize_map(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map (h, w) bilinearly to `size` (height, width), corners not aligned."""
    tensor = torch.from_numpy(np.asarray(saliency, dtype=np.float32))[None, None]
    return interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()
