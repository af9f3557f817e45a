"""Server: an uncut timm classifier, its weights, its number of classes and its image format."""

import timm
import torch
from torch import Tensor, nn
from torchdistill.models.registry import register_model

from misc.errors import UserError, did_you_mean
from model.weights import check_fit, load_weights, of_one_model, read_state_dict


@register_model(key="timm_classifier")
def create_timm_model(
    name: str, weights_path: str | None = None, pretrained: bool = False, num_classes: int | None = None, **timm_kwargs
) -> nn.Module:
    """Build an uncut timm model.

    Args:
        name: timm's model name.
        weights_path: weights of this model, as `model.weights.read_state_dict` reads them.
        pretrained: without weights_path, download timm's weights (once) instead of initialising randomly.
        num_classes: width of the classifier; None is that of the weights, without weights timm's.
        **timm_kwargs: constructor arguments of timm's model class.

    Raises:
        UserError: unknown name or argument, or weights that are unavailable or do not fit.
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'{_nearest_timm_name(name)}")
    pretrained = pretrained and weights_path is None
    try:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        model = timm.create_model(name, pretrained=pretrained, **classes, **timm_kwargs)
    except (OSError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        if pretrained and isinstance(error, OSError | RuntimeError):
            advice = "timm's weights cannot be downloaded: give a file as weights_path"
            raise UserError(f"timm model '{name}': {advice}") from error
        raise UserError(f"timm model '{name}': {' '.join(str(error).split()) or type(error).__name__}") from error
    if weights_path is not None:
        state = of_one_model(read_state_dict(weights_path), model)
        if num_classes is None:
            _fit_classifier(model, state)
        load_weights(model, weights_path, state)
    return model


def _fit_classifier(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a timm model a classifier of the width that its weights have."""
    names = model.default_cfg["classifier"]  # several in distilled DeiTs
    weight = state.get(f"{names if isinstance(names, str) else names[0]}.weight")
    if weight is not None and len(weight) != model.num_classes:
        model.reset_classifier(len(weight))


def _nearest_timm_name(name: str) -> str:
    return did_you_mean(name, timm.list_models()) if len(name) > 2 else ""


def data_config(model: nn.Module) -> dict:
    """Return timm's data config of a model: input_size (3, H, W), mean, std, interpolation, crop_pct, crop_mode."""
    config = timm.data.resolve_model_data_config(model)
    own_size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if own_size is not None:  # timm's data config ignores the argument img_size
        config["input_size"] = (3, *own_size)
    return config


def data_config_of(backbone: dict) -> dict:
    """Return timm's data config of the model that arguments of `create_backbone` describe; no weights are read."""
    return data_config(_blank(backbone))


def num_classes_of(backbone: dict) -> int:
    """Return the number of classes of the model that arguments of `create_backbone` describe.

    Raises:
        UserError: unknown name or argument, or weights that are not there or do not fit.
    """
    explicit = backbone.get("new_classifier") or backbone.get("num_classes")
    if explicit is not None:
        return explicit
    model, weights_path = _blank(backbone), backbone.get("weights_path")
    if weights_path is not None:
        state = of_one_model(read_state_dict(weights_path), model)
        _fit_classifier(model, state)
        check_fit(model, weights_path, state)
    return int(model.num_classes)


def _blank(backbone: dict) -> nn.Module:
    """Build a timm model whose tensors have no storage."""
    without = {"split_idx", "new_classifier", "weights_path", "pretrained"}
    with torch.device("meta"):
        return create_timm_model(**{key: value for key, value in backbone.items() if key not in without})
