"""Activations of target layers, and the gradients of class logits with respect to them, at the least cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from misc.errors import UserError
from saliency_maps.cam_prep.target_layers import TargetLayer


def activations(model: nn.Module, layers: Sequence[TargetLayer], images: Tensor) -> list[Tensor]:
    """Returns each layer's activations, (B, C, H, W), for images (B, 3, H, W); nothing is recorded for a backward."""
    with torch.inference_mode(), _recorded(layers, cut=False) as outputs:
        model(images)
    return [layer.channels_first(output) for layer, output in zip(layers, _in_order(layers, outputs), strict=True)]


def activations_and_gradients(
    model: nn.Module, layers: Sequence[TargetLayer], images: Tensor, labels: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns each layer's activations and the gradients of the images' class logits with respect to them.

    The graph begins at the first target layer that is executed, so nothing before it is differentiated, and no
    parameter has a gradient. Images do not influence each other in eval mode, so one backward of the summed logits
    gives each image its own gradient.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        layers: modules of `model`.
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices.

    Returns:
        Two lists with one detached tensor (B, C, H, W) per layer.
    """
    with torch.enable_grad(), _recorded(layers, cut=True) as outputs:
        logits = model(images)
        recorded = _in_order(layers, outputs)
        gradients = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), recorded)
    return (
        [layer.channels_first(activation.detach()) for layer, activation in zip(layers, recorded, strict=True)],
        [layer.channels_first(gradient) for layer, gradient in zip(layers, gradients, strict=True)],
    )


@contextmanager
def _recorded(layers: Sequence[TargetLayer], cut: bool) -> Iterator[dict[int, Tensor]]:
    """Collects the layers' outputs while the model runs; `cut` makes an output without a graph the leaf of one."""
    outputs: dict[int, Tensor] = {}

    def record(index: int, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise UserError(f"layer '{layers[index].name}' gives {kind}, not a map of features: choose another layer")
        layers[index].channels_first(output)  # an output of another shape is refused before it is differentiated
        if cut and not output.requires_grad:
            output = output.detach().requires_grad_()
        outputs[index] = output
        # The next module may work in place, which would change the record and is forbidden on a leaf.
        return output.clone()

    handles = [
        layer.module.register_forward_hook(lambda module, inputs, output, index=index: record(index, output))
        for index, layer in enumerate(layers)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _in_order(layers: Sequence[TargetLayer], outputs: dict[int, Tensor]) -> list[Tensor]:
    for index, layer in enumerate(layers):
        if index not in outputs:
            raise UserError(f"layer '{layer.name}' takes no part in the forward pass: choose another layer")
    return [outputs[index] for index in range(len(layers))]
