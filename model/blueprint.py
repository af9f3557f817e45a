"""Server: the blueprint of the decoder that suits a backbone, where a config does not give a decoder."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer
from timm.models.resnet import Bottleneck
from torch import nn

from misc.errors import UserError
from model.backbone import Backbone
from model.decoder import ConvNeXtDecoder, ResNetDecoder, SwinDecoder, ViTDecoder

AUTO = "auto"
LATENT_STRIDE = 8  # of model.encoder.ResidualEncoder


class Blueprint(NamedTuple):
    """A family's decoder: its class, the stride of h that it reaches, its arguments for a backbone and h's shape."""

    decoder: type[nn.Module]
    stride: int
    arguments: Callable[[Backbone, tuple[int, ...]], dict[str, Any]]


def _resnet(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, Any]:
    bottleneck = any(isinstance(module, Bottleneck) for module in backbone.head.modules())
    return {"out_channels": shape[0], "bottleneck": bottleneck}


def _convnext(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"out_channels": shape[0]}


def _swin(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, Any]:
    window, _ = backbone.head.stage0.blocks[0].window_size
    return {"out_channels": shape[0], "feature_size": 2 * shape[1], "window_size": window}


def _vit(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, Any]:
    grid = backbone.data_config["input_size"][1] // (2 * LATENT_STRIDE)
    return {"out_channels": shape[1], "feature_size": grid, "prefix_tokens": shape[0] - grid**2}


BLUEPRINTS = {
    ResNet: Blueprint(ResNetDecoder, 8, _resnet),
    ConvNeXt: Blueprint(ConvNeXtDecoder, 8, _convnext),
    SwinTransformer: Blueprint(SwinDecoder, 16, _swin),
    VisionTransformer: Blueprint(ViTDecoder, 16, _vit),
}


def decoder_for(
    backbone: Backbone, latent_channels: int, decoder: nn.Module | str, blueprint: dict[str, Any] | None = None
) -> nn.Module:
    """Return the decoder that a config asks for.

    Args:
        backbone: the cut classifier.
        latent_channels: of y, which has an eighth of the image's height and width.
        decoder: a decoder, or "auto" for the one of the backbone's family, with the sizes of its cut.
        blueprint: with "auto", arguments of the decoder that replace what follows from the cut.

    Raises:
        UserError: neither, a cut that the family's decoder does not reach, or arguments that it does not take.
    """
    if isinstance(decoder, nn.Module):
        if blueprint:
            raise UserError(f"blueprint is for decoder: {AUTO}: give its arguments to the decoder itself")
        return decoder
    if decoder != AUTO:
        raise UserError(f"decoder is {decoder!r}; expected a decoder or '{AUTO}'")
    found = next(each for kind, each in BLUEPRINTS.items() if issubclass(backbone.family, kind))
    shape = _feature_shape(backbone)
    _check_stride(backbone, found, shape)
    arguments = {"latent_channels": latent_channels, **found.arguments(backbone, shape), **(blueprint or {})}
    try:
        return found.decoder(**arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"blueprint {blueprint} of {found.decoder.__name__}: {reason}") from error


@torch.no_grad()
def _feature_shape(backbone: Backbone) -> tuple[int, ...]:
    was_training = backbone.head.training
    backbone.head.eval()
    shape = tuple(backbone.head(torch.zeros(1, *backbone.data_config["input_size"])).shape[1:])
    backbone.head.train(was_training)
    return shape


def _check_stride(backbone: Backbone, blueprint: Blueprint, shape: tuple[int, ...]) -> None:
    side = backbone.data_config["input_size"][1]
    # A ViT's h are tokens, its prefix tokens fewer than needed for a larger square.
    stride = side // math.isqrt(shape[0]) if len(shape) == 2 else round(side / shape[1])
    if stride != blueprint.stride:
        remedy = "give a decoder" if len(shape) == 2 else "change split_idx, or give a decoder"  # ViTs have one stride
        raise UserError(
            f"{blueprint.decoder.__name__} restores a feature at 1/{blueprint.stride} of the image's size, the cut of "
            f"this {backbone.family.__name__} is at 1/{stride}: {remedy}"
        )
