"""The teacher: an uncut timm classifier, its weights and preprocessing."""

from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import nn
from torchvision.transforms import v2

from misc.errors import UserError

SEED = 0  # of random weights: a run with an untrained teacher can be resumed only with the same one


class Teacher(NamedTuple):
    """A classifier, what it was built from, and its weights file (None: timm's pretrained weights, or random ones)."""

    model: nn.Module
    name: str
    kwargs: dict[str, Any]
    weights_path: str | None


class InputFormat(NamedTuple):
    """Image size as (height, width), and the mean and standard deviation of the normalisation."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def preprocessing(self) -> v2.Compose:
        """Return PIL image -> (3, height, width), normalised. The whole frame is kept, so that a map covers it."""
        return v2.Compose(
            [
                v2.Resize(self.size, v2.InterpolationMode.BILINEAR, antialias=True),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(self.mean, self.std),
            ]
        )


def teacher_by_name(
    name: str, weights_path: str | None = None, num_classes: int | None = None, random_weights: bool = False
) -> Teacher:
    """Build timm's model `name` with random weights if asked for, else with those of a file or, without one, timm's.

    Raises:
        UserError: see `create_timm_model`; or timm's weights are for another number of classes.
    """
    pretrained = weights_path is None and not random_weights
    if pretrained:
        found = timm.get_pretrained_cfg(name, allow_unregistered=True)
        pretrained_classes = found.num_classes if found else 1000
        if num_classes not in (None, pretrained_classes):
            raise UserError(
                f"timm's weights of {name} are for {pretrained_classes} classes, --num_classes is {num_classes}: "
                "give a file as --weights_path"
            )
    model = _build(name, weights_path, pretrained, num_classes)
    return Teacher(model, name, {"num_classes": model.num_classes}, weights_path)


def teacher_from_config(path: str | Path, weights_path: str | None = None, random_weights: bool = False) -> Teacher:
    """Build the teacher of a training config, uncut. Nothing else of the config is built, so no data set is needed.

    Args:
        path: a training config; its `models.teacher_model.kwargs` are those of `create_timm_model` and `split_idx`.
        weights_path: weights file in place of the config's.
        random_weights: random weights in place of the config's.

    Raises:
        UserError: a config without a teacher, or a teacher without trained weights.
    """
    from misc.config.load import compose_config

    config, key = compose_config(path, mode="test"), "models.teacher_model.kwargs"
    if not config.has(f"{key}.name"):
        raise UserError(f"{path} has no models.teacher_model with kwargs and a name in them")
    kwargs = dict(config.construct(key))
    name = kwargs.pop("name")
    kwargs.pop("split_idx", None)
    if random_weights:
        kwargs |= {"weights_path": None, "pretrained": False}
    weights_path = weights_path or kwargs.get("weights_path")
    kwargs["weights_path"] = weights_path
    if weights_path is None and not kwargs.get("pretrained") and not random_weights:
        raise UserError(
            f"the teacher of {path} is untrained: give its weights as --weights_path, or --random_weights to try it out"
        )
    model = _build(name, **kwargs)
    kwargs.pop("weights_path")
    return Teacher(model, name, kwargs, weights_path)


def _build(*args: Any, **kwargs: Any) -> nn.Module:
    """Build a model; its random weights, where it keeps them, are the same in every run."""
    from model.classifier import create_timm_model

    torch.manual_seed(SEED)
    return create_timm_model(*args, **kwargs)


def input_format(model: nn.Module, input_size: int | None = None) -> InputFormat:
    """Return the format of the model's images: timm's normalisation, and its own size or squares of `input_size`.

    Raises:
        UserError: `input_size` is not the only size the model takes.
    """
    config = timm.data.resolve_model_data_config(model)
    patch_embed = getattr(model, "patch_embed", None)
    own_size = getattr(patch_embed, "img_size", None)
    size = (input_size, input_size) if input_size else tuple(own_size or config["input_size"][1:])
    if getattr(patch_embed, "strict_img_size", False) and size != tuple(own_size):
        raise UserError(f"the model takes images of {own_size[0]}x{own_size[1]} only, --input_size is {input_size}")
    return InputFormat(size, tuple(config["mean"]), tuple(config["std"]))
