"""Where a student's bits go: over the image's positions, and over the images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.split import SplitClassifier


@torch.inference_mode()
def bits_per_position(student: SplitClassifier, x: Tensor) -> Tensor:
    """Returns the bits that the likelihoods promise for each position of the latent.

    A hyper latent's bits are shared among the positions that it stands for; those of the padding are left out.

    Args:
        student: in eval mode.
        x: (B, 3, H, W), normalised.

    Returns:
        (B, h, w), the latent being (B, C, h, w).
    """
    y = student.encoder(x)
    _, likelihoods = student.entropy_model.estimate(y)
    maps = {name: -torch.log2(likelihood).sum(dim=1) for name, likelihood in likelihoods.items()}
    total = maps["y"]
    if "z" in maps:
        stride = student.entropy_model.stride
        total = total + F.interpolate(maps["z"][:, None], scale_factor=stride, mode="nearest")[:, 0] / stride**2
    return total[:, : y.shape[2], : y.shape[3]]
