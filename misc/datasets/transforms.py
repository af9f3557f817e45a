"""Image transforms in the format that timm states for a backbone: size, crop, interpolation, mean and deviation.

Each takes the arguments of `model.backbone.create_backbone`, of which no weights are read.
"""

import math

import timm
import torch
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import v2

from misc.errors import UserError
from model.classifier import data_config_of


def evaluation_transform(backbone: dict) -> v2.Compose:
    """Return PIL image -> (3, H, W), normalised, as timm evaluates the backbone.

    Raises:
        UserError: a kind of crop other than timm's "center" and "squash".
    """
    config = data_config_of(backbone)
    size, scaled = _sizes(config)
    if config["crop_mode"] not in ("center", "squash"):
        raise UserError(
            f"{backbone['name']}: timm crops its images by '{config['crop_mode']}': give the transform yourself"
        )
    whole = list(scaled) if config["crop_mode"] == "squash" else min(scaled)
    return v2.Compose([v2.Resize(whole, _interpolation(config)), v2.CenterCrop(size), *_to_tensor(config)])


def training_transform(backbone: dict, scale: tuple[float, float] = (0.25, 1.0), crop: int | None = None) -> v2.Compose:
    """Return PIL image -> (3, H, W), normalised: a random part of random size, mirrored every second time.

    Args:
        backbone: the arguments.
        scale: least and greatest area of the part that is scaled to the input size, relative to the image's.
        crop: side of a random crop of that; None takes all of it. A convolutional student learns from small crops too,
            at a fraction of the time.

    Raises:
        UserError: a crop for a backbone that takes images of one size only.
    """
    config = data_config_of(backbone)
    size, _ = _sizes(config)
    resized = v2.RandomResizedCrop(size, scale, interpolation=_interpolation(config))
    return v2.Compose([resized, *_crops(backbone, crop), v2.RandomHorizontalFlip(), *_to_tensor(config)])


def map_transform(backbone: dict, crop: int | None = None) -> v2.Compose:
    """Return (PIL image, saliency map) -> the whole frame of both at the input size, or a random crop of that.

    They are mirrored every second time.

    The arguments and errors are those of `training_transform`.
    """
    config = data_config_of(backbone)
    size, _ = _sizes(config)
    resized = v2.Resize(size, _interpolation(config))
    return v2.Compose([resized, *_crops(backbone, crop), v2.RandomHorizontalFlip(), *_to_tensor(config)])


def _crops(backbone: dict, crop: int | None) -> list[v2.Transform]:
    if crop is None:
        return []
    if timm.get_pretrained_cfg(backbone["name"], allow_unregistered=True).fixed_input_size:
        raise UserError(f"crop is {crop}: {backbone['name']} takes images of one size only; leave crop at null")
    return [v2.RandomCrop(crop)]


def _sizes(config: dict) -> tuple[list[int], tuple[int, int]]:
    """Return the input size, and the one to which an image is scaled before the crop, as timm rounds it."""
    _, height, width = config["input_size"]
    scaled = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    return [height, width], scaled


def _interpolation(config: dict) -> v2.InterpolationMode:
    return str_to_interp_mode(config["interpolation"])


def _to_tensor(config: dict) -> list[v2.Transform]:
    scaled = v2.ToDtype(torch.float32, scale=True)
    return [v2.ToImage(), scaled, v2.Normalize(list(config["mean"]), list(config["std"]))]
