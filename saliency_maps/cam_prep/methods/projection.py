"""The first principal component of feature maps, on the device, from the smaller Gram matrix.

What pytorch-grad-cam's `get_2d_projection` computes by a float32 SVD per image in NumPy, with two differences: the
sign is defined, and the eigenvectors come from a float64 Gram matrix, which is both faster and closer to the exact
answer than the SVD (scripts/benchmarks/saliency.py).
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

try:
    import cupy
except ImportError:
    cupy = None

LeadingEigenpair = Callable[[Tensor], tuple[Tensor, Tensor]]


def first_principal_component(features: Tensor, leading_eigenpair: LeadingEigenpair | None = None) -> Tensor:
    """Project feature maps on their first principal component over the positions.

    The sign of a principal component is arbitrary. Here the side with the larger extreme is positive (the rule of
    Seg-Eigen-CAM, https://doi.org/10.3390/app15137562); of two equal extremes the first in reading order is.

    Args:
        features: (B, C, H, W), real; NaN counts as 0.
        leading_eigenpair: from float64 symmetric matrices, (B, N, N), to their largest eigenvalues, (B,), and the unit
            eigenvectors of these, (B, N). None takes the fastest one for the features' device.

    Returns:
        (B, H, W) in float32, of zero mean over each map; NaN where an image's features are infinite.
    """
    positions = features.flatten(2).transpose(1, 2)
    mean = positions.mean(dim=1, keepdim=True, dtype=torch.float64)
    # In float64 a mean of float32 values overflows only where one of them is no number.
    infinite = None
    if not mean.isfinite().all():
        positions = positions.masked_fill(positions.isnan(), 0)
        infinite = positions.isinf().any(dim=(1, 2))
        positions = positions.masked_fill(infinite[:, None, None], 0)
        mean = positions.mean(dim=1, keepdim=True, dtype=torch.float64)
    projection = _project(positions - mean, leading_eigenpair or _fastest(features.device))
    extreme = projection.gather(1, projection.abs().argmax(dim=1, keepdim=True))
    projection = projection * extreme.sign()
    if infinite is not None:
        projection = projection.masked_fill(infinite[:, None], torch.nan)
    return projection.unflatten(1, features.shape[2:]).float()


def _project(centred: Tensor, leading_eigenpair: LeadingEigenpair) -> Tensor:
    """Return the projection, (B, N), of `centred`, (B, N, C), on its leading right singular vector, up to sign."""
    num_positions, num_channels = centred.shape[1:]
    if num_channels <= num_positions:
        _, direction = leading_eigenpair(centred.mT @ centred)
        return (centred @ direction[:, :, None]).squeeze(2)
    # With X = U S V^T, the projection X v_1 equals s_1 u_1, and u_1 is the leading eigenvector of X X^T.
    eigenvalue, direction = leading_eigenpair(centred @ centred.mT)
    return direction * eigenvalue.clamp(min=0).sqrt()[:, None]


def _fastest(device: torch.device) -> LeadingEigenpair:
    if device.type == "cpu":
        return by_scipy
    return by_cupy if cupy and device.type == "cuda" else by_torch


def by_scipy(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading eigenpairs by LAPACK on the CPU, which computes no others."""
    last = gram.shape[1] - 1
    pairs = [
        scipy.linalg.eigh(matrix, subset_by_index=(last, last), overwrite_a=True, check_finite=False)
        for matrix in gram.numpy()
    ]
    values, vectors = zip(*pairs, strict=True)
    return torch.from_numpy(np.concatenate(values)), torch.from_numpy(np.concatenate(vectors, axis=1).T.copy())


def by_torch(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading eigenpairs by torch, on any device."""
    return _last(*torch.linalg.eigh(gram))


def by_cupy(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading eigenpairs by CuPy on CUDA, in memory that torch and CuPy share."""
    with cupy.cuda.Device(gram.device.index):
        values, vectors = cupy.linalg.eigh(cupy.from_dlpack(gram.contiguous()))
        return _last(torch.from_dlpack(values), torch.from_dlpack(vectors))


def _last(values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    return values[:, -1], vectors[:, :, -1]
