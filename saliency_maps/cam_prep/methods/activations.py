"""Activations of target layers and gradients of class logits with respect to them, without needless backward passes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from saliency_maps.cam_prep.methods.clock import Clock
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def activations(
    model: nn.Module,
    layers: Sequence[TargetLayer],
    images: Tensor,
    autocast: torch.dtype | None = None,
    clock: Clock | None = None,
) -> list[Tensor]:
    """Return each layer's activations, (B, C, H, W) in float32, without a graph.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        layers: modules of `model`.
        images: (B, 3, H, W), normalised.
        autocast: lower precision of the forward pass.
        clock: adds the time to "forward".
    """
    with torch.inference_mode(), recorded(layers, cut=False) as outputs:
        run(model, images, autocast, clock or Clock())
    return [layer.channels_first(outputs[layer.name]).float() for layer in layers]


def activations_and_gradients(
    model: nn.Module,
    layers: Sequence[TargetLayer],
    images: Tensor,
    labels: Tensor | None,
    autocast: torch.dtype | None = None,
    clock: Clock | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return each layer's activations and the gradients of the images' class logits with respect to them.

    The graph begins at the first target layer that is executed: nothing before it is differentiated, and no parameter
    gets a gradient. Images do not influence each other in eval mode, so one backward pass of the summed logits gives
    each image its own gradient.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        layers: modules of `model`.
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices; None takes the class that the model predicts.
        autocast: lower precision of the forward pass.
        clock: adds the time to "forward" and "backward".

    Returns:
        Two lists with one detached float32 tensor (B, C, H, W) per layer.
    """
    clock = clock or Clock()
    with torch.enable_grad(), recorded(layers, cut=True) as outputs:
        logits = run(model, images, autocast, clock)
        features = [outputs[layer.name] for layer in layers]
        with clock("backward", images.device):
            gradients = torch.autograd.grad(target_logits(logits, labels).sum(), features)
    return (
        [layer.channels_first(activation.detach()).float() for layer, activation in zip(layers, features, strict=True)],
        [layer.channels_first(gradient).float() for layer, gradient in zip(layers, gradients, strict=True)],
    )


def target_logits(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Return the logits (B,) of the labels or, without labels, the largest ones."""
    if labels is None:
        return logits.max(dim=1).values
    return logits.gather(1, labels[:, None])[:, 0]


def autocast_context(images: Tensor, autocast: torch.dtype | None) -> AbstractContextManager:
    """Return the context of a forward pass in lower precision; None is float32."""
    return torch.autocast(images.device.type, autocast) if autocast else nullcontext()


def run(model: nn.Module, images: Tensor, autocast: torch.dtype | None, clock: Clock) -> Tensor:
    """Return the logits in float32 and add the time to "forward"."""
    with clock("forward", images.device), autocast_context(images, autocast):
        return model(images).float()


@contextmanager
def recorded(layers: Sequence[TargetLayer], cut: bool) -> Iterator[dict[str, Tensor]]:
    """Collect the layers' outputs, by name, as the model runs; with `cut`, an output without a graph starts one."""
    outputs: dict[str, Tensor] = {}

    def record(name: str, output: Tensor) -> Tensor:
        if cut and not output.requires_grad:
            output = output.detach().requires_grad_()
        outputs[name] = output
        # The next module may work in place, which would change the record and which autograd forbids on a leaf.
        return output.clone()

    handles = [
        layer.module.register_forward_hook(lambda module, inputs, output, name=layer.name: record(name, output))
        for layer in layers
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
