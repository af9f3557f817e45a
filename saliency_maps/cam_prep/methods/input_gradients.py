"""Methods that differentiate down to the image: guided backpropagation and FullGrad."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import GELU, GELUTanh
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_maps.cam_prep.methods.activations import target_logits

RECTIFIERS = (nn.ReLU, nn.GELU, GELU, GELUTanh)


class _Guided(torch.autograd.Function):
    """Hands an activation's output on; backward lets positive gradients of positive inputs pass."""

    @staticmethod
    def forward(ctx, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return output.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (positive,) = ctx.saved_tensors
        return gradient.relu() * positive, None


def guided_backpropagation(model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """Gradients of the class logits with respect to the image, guided (Springenberg et al., ICLR workshop 2015).

    Every ReLU and GELU keeps its output; on the way back, gradients pass where they and the activation's input are
    positive, which is the rule for ReLU. A network without such modules gives its plain gradients.

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


def full_gradients(model: nn.Module, images: Tensor, labels: Tensor | None) -> list[Tensor]:
    """FullGrad's parts (Srinivas and Fleuret, NeurIPS 2019): the image's and every bias's share of the logit.

    As in pytorch-grad-cam biases are those of nn.Conv2d and nn.BatchNorm2d, running mean included.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices; None takes the class that the model predicts.

    Returns:
        |gradient * image|, (B, 3, H, W), and for every layer with a bias |gradient * bias|, (B, C, H', W').
    """
    with_bias = (module for module in model.modules() if type(module) in (nn.Conv2d, nn.BatchNorm2d))
    layers = [module for module in with_bias if module.bias is not None]
    outputs: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        outputs[module] = output
        return output.clone()  # the next module may work in place

    handles = [module.register_forward_hook(record) for module in layers]
    try:
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            logits = target_logits(model(images), labels)
            own, *others = torch.autograd.grad(logits.sum(), [images, *(outputs[layer] for layer in layers)])
    finally:
        for handle in handles:
            handle.remove()
    biases = (_bias(layer)[:, None, None] for layer in layers)
    parts = [(gradient * bias).abs() for gradient, bias in zip(others, biases, strict=True)]
    return [(own * images.detach()).abs(), *parts]


def _bias(layer: nn.Conv2d | nn.BatchNorm2d) -> Tensor:
    if isinstance(layer, nn.BatchNorm2d):
        return layer.bias - layer.running_mean * layer.weight / torch.sqrt(layer.running_var + layer.eps)
    return layer.bias


def shrunk(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes (B, C, H, W) bilinearly to (B, C, *size), with antialiasing where that is smaller."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
