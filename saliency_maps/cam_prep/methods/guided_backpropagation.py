"""Guided backpropagation: gradients with respect to the image, of which only the positive pass (Springenberg 2015)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import GELU, GELUTanh
from torch import Tensor, nn

from saliency_maps.cam_prep.methods.activations import target_logits

RECTIFIERS = (nn.ReLU, nn.GELU, GELU, GELUTanh)


class _Guided(torch.autograd.Function):
    """Pass an activation's output through; backward, pass the positive gradients of positive inputs."""

    @staticmethod
    def forward(ctx, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return output.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (positive,) = ctx.saved_tensors
        return gradient.relu() * positive, None


def guided_backpropagation(model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return the guided gradients of the class logits with respect to the images.

    The rule is the one for ReLU, applied to GELU as well: a gradient passes where it and the activation's input are
    positive. The forward pass is unchanged. A network without such modules gives its plain gradients. Source:
    Springenberg et al., ICLR workshop 2015, https://arxiv.org/abs/1412.6806.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices; None takes the class that the model predicts.

    Returns:
        (B, 3, H, W).
    """
    with torch.enable_grad(), _guided(model):
        images = images.detach().requires_grad_()
        return torch.autograd.grad(target_logits(model(images), labels).sum(), images)[0]


@contextmanager
def _guided(model: nn.Module) -> Iterator[None]:
    def guide(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return _Guided.apply(inputs[0], output.detach())

    rectifiers = [module for module in model.modules() if isinstance(module, RECTIFIERS)]
    handles = [module.register_forward_hook(guide) for module in rectifiers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
