"""Server: a timm classifier, whole or cut once into head (the distillation target) and tail (kept frozen)."""

import copy
from collections import OrderedDict

import timm
from timm.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer
from torch import Tensor, nn
from torchdistill.models.registry import register_model
from torchvision.ops import Permute

from misc.errors import UserError, did_you_mean
from model.decoder import NCHW_TO_NHWC, NHWC_TO_NCHW
from model.weights import load_weights


class Backbone(nn.Module):
    """A timm classifier in two pieces; `tail(head(x))` equals the uncut model to the bit.

    Attributes:
        head: x (B, 3, H, W) -> h (B, C, H', W'), channels first; of a ViT (B, prefix tokens + H' * W', C).
        tail: h -> logits (B, num_classes).
        data_config: timm's input_size (3, H, W), mean, std and so on of the uncut model.
    """

    def __init__(self, head: nn.Sequential, tail: nn.Sequential, data_config: dict):
        super().__init__()
        self.head = head
        self.tail = tail
        self.data_config = data_config

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, num_classes), in float32 under autocast too: losses of logits need the precision."""
        return self.tail(self.head(x)).float()


@register_model(key="timm_classifier")
def create_timm_model(
    name: str, weights_path: str | None = None, pretrained: bool = False, num_classes: int = 1000, **timm_kwargs
) -> nn.Module:
    """Builds an uncut timm model.

    Args:
        name: timm's model name.
        weights_path: safetensors file or state dict that fits the model exactly.
        pretrained: without a file, take timm's own weights (downloaded once); else those it was initialised with.
        num_classes: width of the classifier.
        **timm_kwargs: constructor arguments of timm's model class.

    Raises:
        UserError: unknown name or argument, weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'{_nearest_timm_name(name)}")
    pretrained = pretrained and weights_path is None
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **timm_kwargs)
    except (OSError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        if pretrained and isinstance(error, OSError | RuntimeError):
            advice = "timm's weights cannot be had here: give a file as weights_path"
            raise UserError(f"timm model '{name}': {advice}") from error
        raise UserError(f"timm model '{name}': {' '.join(str(error).split()) or type(error).__name__}") from error
    if weights_path is not None:
        load_weights(model, weights_path)
    return model


def _nearest_timm_name(name: str) -> str:
    return did_you_mean(name, timm.list_models()) if len(name) > 2 else ""


def cut_resnet(model: ResNet, split_idx: int) -> tuple[OrderedDict, OrderedDict]:
    """Head and tail of a ResNet, cut behind the stage number `split_idx`; 2 is stride 8, the latent's own."""
    stages = [f"layer{number}" for number in range(1, 5)]
    _check_split_idx(split_idx, len(stages))
    stem = ["conv1", "bn1", "act1", "maxpool"]
    ending = [("global_pool", model.global_pool), ("drop", nn.Dropout(model.drop_rate)), ("fc", model.fc)]
    pick = OrderedDict((name, getattr(model, name)) for name in stem + stages)
    head = OrderedDict((name, pick.pop(name)) for name in stem + stages[:split_idx])
    return head, OrderedDict([*pick.items(), *ending])


def cut_convnext(model: ConvNeXt, split_idx: int) -> tuple[OrderedDict, OrderedDict]:
    """Head and tail of a ConvNeXt, cut behind the stage number `split_idx`; 2 is stride 8, the latent's own."""
    _check_split_idx(split_idx, len(model.stages))
    head = OrderedDict(stem=model.stem)
    head.update((f"stage{index}", model.stages[index]) for index in range(split_idx))
    tail = OrderedDict((f"stage{index}", model.stages[index]) for index in range(split_idx, len(model.stages)))
    tail.update(norm_pre=model.norm_pre, head=model.head)
    return head, tail


def cut_swin(model: SwinTransformer, split_idx: int) -> tuple[OrderedDict, OrderedDict]:
    """Head and tail of a Swin, cut between the patch merging and the blocks of stage `split_idx` (counted from 0).

    That is the paper's target: in the timm release it used, patch merging stood at the end of the stage before.
    """
    stages = model.layers
    _check_split_idx(split_idx, len(stages))
    head = OrderedDict(patch_embed=model.patch_embed)
    head.update((f"stage{index}", stages[index]) for index in range(split_idx))
    head.update(downsample=stages[split_idx].downsample, to_nchw=Permute(list(NHWC_TO_NCHW)))
    tail = OrderedDict(to_nhwc=Permute(list(NCHW_TO_NHWC)), blocks=stages[split_idx].blocks)
    tail.update((f"stage{index}", stages[index]) for index in range(split_idx + 1, len(stages)))
    tail.update(norm=model.norm, head=model.head)
    return head, tail


def cut_vit(model: VisionTransformer, split_idx: int) -> tuple[OrderedDict, OrderedDict]:
    """Head and tail of a ViT or DeiT, cut behind the block number `split_idx`; h holds the prefix tokens too."""
    _check_split_idx(split_idx, len(model.blocks))
    embedding = {"patch_embed", "pos_drop", "patch_drop", "norm_pre"}
    tokens = _without(model, set(model._modules) - embedding - {"blocks"})
    tokens.blocks = model.blocks[:split_idx]
    classifier = _without(model, embedding | {"blocks", "norm"})
    tail = OrderedDict(blocks=model.blocks[split_idx:], norm=model.norm, classifier=_HeadOnly(classifier))
    return OrderedDict(tokens=_TokensOnly(tokens)), tail


class _TokensOnly(nn.Module):
    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)


class _HeadOnly(nn.Module):
    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model
        # They belong to the first half.
        for name in ("cls_token", "dist_token", "pos_embed", "reg_token"):
            if name in model._parameters:
                model._parameters[name] = None

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.forward_head(tokens)


def _without(model: nn.Module, names: set[str]) -> nn.Module:
    """Returns a model that shares everything with `model` but the named modules, which do nothing in it."""
    twin = copy.copy(model)
    twin._modules = {name: nn.Identity() if name in names else part for name, part in model._modules.items()}
    twin._parameters = dict(model._parameters)
    return twin


def _check_split_idx(split_idx: int, stages: int) -> None:
    if split_idx not in range(1, stages):
        raise UserError(
            f"split_idx is {split_idx}; expected 1 to {stages - 1}, so many stages (blocks of a ViT) in the head"
        )


CUTS = {ResNet: cut_resnet, ConvNeXt: cut_convnext, SwinTransformer: cut_swin, VisionTransformer: cut_vit}


def cut(model: nn.Module, split_idx: int = 2) -> Backbone:
    """Cuts a timm model; the pieces share its modules.

    Raises:
        UserError: a family without a cut (the supported ones are named), or a stage it does not have.
    """
    family = next((cut_family for kind, cut_family in CUTS.items() if isinstance(model, kind)), None)
    if family is None:
        supported = ", ".join(kind.__name__ for kind in CUTS)
        raise UserError(f"no cut for the family {type(model).__name__}; supported: {supported}")
    head, tail = family(model, split_idx)
    data_config = timm.data.resolve_model_data_config(model)
    own_size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if own_size is not None:  # timm's config does not follow the argument img_size
        data_config["input_size"] = (3, *own_size)
    return Backbone(nn.Sequential(head), nn.Sequential(tail), data_config)


@register_model(key="timm_backbone")
def create_backbone(name: str, split_idx: int = 2, new_classifier: int | None = None, **model_kwargs) -> Backbone:
    """Builds a timm model and cuts it.

    Args:
        name: timm's model name.
        split_idx: stages in the head; of a ViT, blocks.
        new_classifier: number of classes of another data set; an untrained classifier for it takes the place of the
            model's own.
        **model_kwargs: further arguments of `create_timm_model`.
    """
    model = create_timm_model(name, **model_kwargs)
    if new_classifier is not None:
        model.reset_classifier(new_classifier)
    return cut(model, split_idx)
