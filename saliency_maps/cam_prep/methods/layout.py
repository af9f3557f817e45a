"""Layouts of layer outputs (channels first, channels last, tokens), found by running the teacher once."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from misc.errors import UserError

# Heights of grids are 3 * 2^k and widths 5 * 2^k, so that rows, columns and channels cannot be confused.
UNEQUAL_SIDES = (96, 160)
REDUCTIONS = (1, 2, 4, 8, 16, 32)  # of the sides, besides those that the model declares


class Layout(NamedTuple):
    """The meaning of the dimensions of a layer's output.

    Attributes:
        order: "NCHW", "NHWC" or, for tokens, "NLC".
        grid: rows and columns of the patch tokens, in row-major order.
        prefix_tokens: number of tokens before the patch tokens.
    """

    order: str
    grid: tuple[int, int]
    prefix_tokens: int = 0

    def channels_first(self, output: Tensor) -> Tensor:
        """Return an output as (B, C, H, W)."""
        if self.order == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.order == "NCHW":
            return output
        return output[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)


def find_layouts(
    model: nn.Module, layers: Mapping[str, nn.Module], image_size: tuple[int, int] | None = None
) -> list[Layout]:
    """Run the model on one blank image and infer each layer's layout from the shape of its output.

    Args:
        model: a timm model, (B, 3, H, W) -> (B, classes).
        layers: modules of `model` by path.
        image_size: (height, width) of the images to come; None is the model's own. A model without a patch embedding
            takes images of any size, and its layouts do not depend on it.

    Raises:
        UserError: a layer that does not run, or whose output is no map of features.
    """
    patch_embed = getattr(model, "patch_embed", None)
    size = UNEQUAL_SIDES if patch_embed is None else image_size or patch_embed.img_size
    outputs = _outputs(model, layers, size)
    reductions = {*REDUCTIONS, *(stage["reduction"] for stage in model.feature_info)}
    grids = {(whole(size[0] / r), whole(size[1] / r)) for r in reductions for whole in (math.floor, math.ceil)}
    return [_layout(name, outputs.get(name), grids, getattr(model, "num_prefix_tokens", 0)) for name in layers]


def _outputs(model: nn.Module, layers: Mapping[str, nn.Module], size: tuple[int, int]) -> dict[str, object]:
    outputs: dict[str, object] = {}
    handles = [
        layer.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        for name, layer in layers.items()
    ]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return outputs


def _layout(name: str, output: object, grids: set[tuple[int, int]], num_prefix_tokens: int) -> Layout:
    if output is None:
        raise UserError(f"layer '{name}' takes no part in the forward pass: choose another layer")
    if not isinstance(output, Tensor):
        raise UserError(f"layer '{name}' gives {type(output).__name__}, no map of features: choose another layer")
    batch, *shape = output.shape
    layout = _fitting(tuple(shape), grids, num_prefix_tokens) if batch == 1 else None
    if layout is None:
        gives = f"gives shape {tuple(output.shape)} for one image"
        raise UserError(f"layer '{name}' {gives}, no map of features: choose another layer")
    return layout


def _fitting(shape: tuple[int, ...], grids: set[tuple[int, int]], num_prefix_tokens: int) -> Layout | None:
    if len(shape) == 3:
        # A Swin with as many channels as rows fits both; its blocks are channels last.
        images = (Layout("NHWC", shape[:2]), Layout("NCHW", shape[1:]))
        return next((layout for layout in images if layout.grid in grids), None)
    if len(shape) == 2:
        tokens = (Layout("NLC", grid, number) for number in (0, num_prefix_tokens) for grid in grids)
        return next((layout for layout in tokens if layout.prefix_tokens + math.prod(layout.grid) == shape[0]), None)
    return None
