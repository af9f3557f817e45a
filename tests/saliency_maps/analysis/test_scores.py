"""Score of maps against masks, by hand."""

import numpy as np
import pytest

from saliency_maps.analysis.scores import resize_map, score_map, score_maps


@pytest.fixture
def mask() -> np.ndarray:
    """The left upper quarter of 4 x 4."""
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    return mask


def test_a_map_with_three_quarters_of_its_mass_on_a_quarter_of_the_area(mask):
    saliency = np.zeros((4, 4), np.float32)
    saliency[0, 0], saliency[1, 1], saliency[3, 3] = 1.0, 0.5, 0.5
    assert score_map(saliency, mask) == pytest.approx((0.75 / 0.25, 1.0, 0.25))


def test_a_maximum_beside_the_mask_is_a_miss(mask):
    saliency = np.full((4, 4), 0.5, np.float32)
    saliency[3, 3] = 1.0
    assert score_map(saliency, mask) == pytest.approx((2.0 / 8.5 / 0.25, 0.0, 0.25))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_uniform_map_scores_chance(mask, value):
    saliency = np.full((3, 3), value, np.float32)
    assert score_map(saliency, mask) == pytest.approx((1.0, 0.25, 0.25))


def test_a_small_map_is_resized_bilinearly(mask):
    saliency = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    ramp = np.array([1.0, 0.75, 0.25, 0.0])
    assert np.allclose(resize_map(saliency, (4, 4)), np.outer(ramp, ramp))
    assert score_map(saliency, mask) == pytest.approx(((1.75 / 2) ** 2 / 0.25, 1.0, 0.25))


def test_scores_are_means_over_images(mask):
    hit, miss = np.zeros((2, 4, 4), np.float32)
    hit[0, 0], miss[3, 3] = 1.0, 1.0
    assert score_maps([(hit, mask), (miss, mask), (miss, mask), (miss, mask)]) == pytest.approx((1.0, 25.0, 25.0, 4))


def test_what_cannot_be_scored_is_refused(mask):
    with pytest.raises(ValueError, match="mask is empty"):
        score_map(np.ones((4, 4)), np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="no maps"):
        score_maps([])
