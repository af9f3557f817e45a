"""The first principal component of feature maps, on the device, from the smaller Gram matrix.

What pytorch-grad-cam's `get_2d_projection` computes by a float32 SVD per image in NumPy, with two differences: the
sign is defined, and the eigenvectors come from a float64 Gram matrix, which is both faster and closer to the exact
answer than the SVD.
"""

import torch
from torch import Tensor

try:
    import cupy
except ImportError:
    cupy = None


def first_principal_component(features: Tensor) -> Tensor:
    """Projects feature maps on their first principal component over the positions.

    The sign of a principal component is arbitrary. Here the side with the larger extreme is positive (the rule of
    Seg-Eigen-CAM, https://doi.org/10.3390/app15137562); of two equal extremes the first in reading order is.

    Args:
        features: (B, C, H, W), real; NaN counts as 0.

    Returns:
        (B, H, W) in float32, of zero mean over each map; NaN where an image's features are infinite.
    """
    positions = features.flatten(2).transpose(1, 2).double()
    positions = positions.masked_fill(positions.isnan(), 0)
    finite = positions.isfinite().all(dim=(1, 2))
    positions = positions.masked_fill(~finite[:, None, None], 0)
    projection = _project(positions - positions.mean(dim=1, keepdim=True))
    extreme = projection.gather(1, projection.abs().argmax(dim=1, keepdim=True))
    projection = (projection * extreme.sign()).masked_fill(~finite[:, None], torch.nan)
    return projection.unflatten(1, features.shape[2:]).float()


def _project(centred: Tensor) -> Tensor:
    """Returns the projection, (B, N), of `centred`, (B, N, C), on its leading right singular vector, up to sign."""
    num_positions, num_channels = centred.shape[1:]
    if num_channels <= num_positions:
        _, direction = _leading_eigenpair(centred.mT @ centred)
        return (centred @ direction[:, :, None]).squeeze(2)
    # With X = U S V^T, the projection X v_1 equals s_1 u_1, and u_1 is the leading eigenvector of X X^T.
    eigenvalue, direction = _leading_eigenpair(centred @ centred.mT)
    return direction * eigenvalue.clamp(min=0).sqrt()[:, None]


def _leading_eigenpair(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest eigenvalue, (B,), and its unit eigenvector, (B, N), of symmetric matrices, (B, N, N)."""
    eigenvalues, eigenvectors = _cupy_eigh(gram) if cupy and gram.is_cuda else torch.linalg.eigh(gram)
    return eigenvalues[:, -1], eigenvectors[:, :, -1]


def _cupy_eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    with cupy.cuda.Device(gram.device.index):
        eigenvalues, eigenvectors = cupy.linalg.eigh(cupy.from_dlpack(gram.contiguous()))
        return torch.from_dlpack(eigenvalues), torch.from_dlpack(eigenvectors)
