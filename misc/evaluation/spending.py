"""Bit allocation of a student over the positions of its latent."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.split import SplitClassifier


@torch.inference_mode()
def bits_per_position(student: SplitClassifier, x: Tensor, level: int | None = None) -> Tensor:
    """Return the bits that the likelihoods estimate for each position of the latent.

    The bits of a hyperlatent are spread evenly over the positions it covers; padding is left out.

    Args:
        student: in eval mode.
        x: (B, 3, H, W), normalised.
        level: of a student of variable rate; None is its middle one.

    Returns:
        (B, h, w), for a latent (B, C, h, w).
    """
    y = student.encoder(x)
    _, likelihoods = student.entropy_model.estimate(y, level)
    maps = {name: -torch.log2(likelihood).sum(dim=1) for name, likelihood in likelihoods.items()}
    total = maps["y"]
    if "z" in maps:
        stride = student.entropy_model.stride
        total = total + F.interpolate(maps["z"][:, None], scale_factor=stride, mode="nearest")[:, 0] / stride**2
    return total[:, : y.shape[2], : y.shape[3]]
