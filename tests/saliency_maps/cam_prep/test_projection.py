"""Properties of the first principal component: exactness, sign, independence of the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_maps.cam_prep.methods.projection import first_principal_component

shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 2**31)


def random_features(shape: tuple[int, ...], seed: int, channel_decay: float = 1.0) -> torch.Tensor:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return features * channel_decay ** torch.arange(shape[1])[None, :, None, None]


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.sampled_from([1.0, 0.5]))
def test_equals_the_svd(shape, seed, channel_decay):
    features = random_features(shape, seed, channel_decay)
    projection = first_principal_component(features).numpy()
    for image, found in zip(features.double().numpy(), projection, strict=True):
        positions = image.reshape(image.shape[0], -1).T
        positions = positions - positions.mean(axis=0)
        left, singular, _ = np.linalg.svd(positions, full_matrices=False)
        if len(singular) > 1 and singular[1] > 0.999 * singular[0] > 0:
            continue  # two directions explain the same: either is right
        expected = left[:, 0] * singular[0]
        error = min(np.abs(sign * expected - found.ravel()).max() for sign in (1, -1))
        assert error <= 1e-4 * np.abs(expected).max() + 1e-6


@settings(max_examples=60, deadline=None)
@given(shapes, seeds)
def test_the_larger_extreme_is_positive(shape, seed):
    projection = first_principal_component(random_features(shape, seed)).flatten(1)
    assert (projection.amax(1) >= -projection.amin(1) - 1e-6).all()


@settings(max_examples=30, deadline=None)
@given(shapes, seeds)
def test_negated_features_have_the_same_projection(shape, seed):
    features = random_features(shape, seed, channel_decay=0.5)
    projection = first_principal_component(features)
    flat = projection.flatten(1)
    decided = (flat.amax(1) + flat.amin(1)).abs() > 1e-3
    torch.testing.assert_close(first_principal_component(-features)[decided], projection[decided])


@settings(max_examples=30, deadline=None)
@given(shapes, seeds)
def test_an_image_does_not_depend_on_its_batch(shape, seed):
    features = random_features(shape, seed, channel_decay=0.5)
    together = first_principal_component(features)
    alone = torch.cat([first_principal_component(image[None]) for image in features])
    flat = together.flatten(1)
    decided = (flat.amax(1) + flat.amin(1)).abs() > 1e-3
    torch.testing.assert_close(together[decided], alone[decided], rtol=1e-4, atol=1e-5)


def test_of_two_equal_extremes_the_first_is_positive():
    ramp = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(first_principal_component(ramp), -ramp[:, 0])


def test_nan_counts_as_zero_and_infinity_spoils_its_own_image_only():
    features = random_features((3, 4, 3, 3), 0)
    features[0, 1, 1, 1] = torch.nan
    features[1, 0, 0, 0] = torch.inf
    projection = first_principal_component(features)
    torch.testing.assert_close(projection[0], first_principal_component(features[:1].nan_to_num())[0])
    assert projection[1].isnan().all()
    assert projection[2].isfinite().all()


def test_constant_features_project_to_zero():
    assert (first_principal_component(torch.ones(2, 5, 3, 3)) == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(4, 192, 28, 28), (4, 768, 7, 7)])
def test_cuda_equals_cpu(shape):
    features = random_features(shape, 0, channel_decay=0.9)
    on_cuda = first_principal_component(features.cuda()).cpu()
    torch.testing.assert_close(on_cuda, first_principal_component(features), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cupy_equals_torch(monkeypatch):
    pytest.importorskip("cupy", reason="CuPy is optional")
    features = random_features((4, 192, 28, 28), 0, channel_decay=0.9).cuda()
    with_cupy = first_principal_component(features)
    monkeypatch.setattr("saliency_maps.cam_prep.methods.projection.cupy", None)
    torch.testing.assert_close(with_cupy, first_principal_component(features), rtol=1e-4, atol=1e-4)
