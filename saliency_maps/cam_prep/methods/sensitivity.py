"""Sensitivity: how much the teacher's logits change with each element of a feature, whatever the class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saliency_maps.cam_prep.methods.activations import recorded, run
from saliency_maps.cam_prep.methods.clock import Clock
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

DRAWS = 4
SEED = 0  # the same directions for every image, so that a map does not depend on its batch


def squared_jacobians(
    model: nn.Module,
    layers: Sequence[TargetLayer],
    images: Tensor,
    autocast: torch.dtype | None = None,
    clock: Clock | None = None,
) -> list[Tensor]:
    """Return, for each layer with output h, a sketch of the diagonal of J^T J, J = d logits / d h.

    For v of independent random signs, E[(v^T J)^2] is the squared norm of J's column (Hutchinson 1990); the mean over
    `DRAWS` such v takes that many backward passes, instead of one per class. To first order, the squared error of h
    weighted by it is the expected squared error of the logits.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        layers: modules of `model`.
        images: (B, 3, H, W), normalised.
        autocast: lower precision of the forward pass.
        clock: counts under "forward" and "backward".

    Returns:
        One float32 tensor (B, C, H, W) per layer, not negative.
    """
    clock = clock or Clock()
    with torch.enable_grad(), recorded(layers, cut=True) as outputs:
        logits = run(model, images, autocast, clock)
        features = [outputs[layer.name] for layer in layers]
        totals = [torch.zeros_like(feature, dtype=torch.float32) for feature in features]
        with clock("backward", images.device):
            for signs in directions(logits.shape[1]).to(logits):
                gradients = torch.autograd.grad((logits * signs).sum(), features, retain_graph=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient.float().square() / DRAWS
    return [layer.channels_first(total) for layer, total in zip(layers, totals, strict=True)]


def directions(num_classes: int) -> Tensor:
    """Return v, random signs (DRAWS, num_classes)."""
    generator = torch.Generator().manual_seed(SEED)
    return 2.0 * torch.randint(2, (DRAWS, num_classes), generator=generator) - 1
