"""Statistics of maps, by hand."""

import numpy as np
import pytest

from saliency_maps.analysis.statistics import MapStatistics, relative_entropy, top_share


def test_figures_are_those_of_all_values_together():
    rng = np.random.default_rng(0)
    maps = [rng.random((7, 5), dtype=np.float32) ** 3 for _ in range(20)]
    statistics = MapStatistics()
    assert not any(statistics.update(saliency) for saliency in maps)
    values = np.concatenate([saliency.ravel() for saliency in maps])
    assert statistics.maps == 20
    assert statistics.mean == pytest.approx(values.mean(), rel=1e-5)
    assert statistics.std == pytest.approx(values.std(), rel=1e-5)
    for share in (0.05, 0.5, 0.95):
        expected = np.quantile(values, share, method="inverted_cdf")
        assert statistics.quantile(share) == pytest.approx(expected, abs=1e-4)


def test_the_ends_of_the_range_are_exact_enough():
    statistics = MapStatistics()
    statistics.update(np.array([[0.0, 0.0], [0.0, 1.0]], np.float32))
    assert statistics.quantile(0.5) == pytest.approx(0, abs=1e-4)
    assert statistics.quantile(1.0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_uniform_map_prefers_nothing(value):
    statistics = MapStatistics()
    assert statistics.update(np.full((10, 10), value, np.float32))
    assert statistics.top_share == pytest.approx(0.1)
    assert statistics.relative_entropy == pytest.approx(1)
    assert statistics.std == pytest.approx(0)


def test_concentration_by_hand():
    values = np.zeros(20)
    values[:4] = 0.4, 0.3, 0.2, 0.1
    assert top_share(values) == pytest.approx(0.7)  # two of twenty positions
    values[:4] = 0.25
    assert relative_entropy(values) == pytest.approx(np.log(4) / np.log(20))
    values[1:] = 0
    assert relative_entropy(values) == pytest.approx(0)
    assert relative_entropy(np.array([0.3])) == 1
