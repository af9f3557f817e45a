"""Server: a timm classifier cut into head (the distillation target) and tail (kept frozen)."""

import copy
from collections import OrderedDict

from timm.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer
from torch import Tensor, nn
from torchdistill.models.registry import register_model
from torchvision.ops import Permute

from misc.errors import UserError
from model.classifier import create_timm_model, data_config
from model.decoder import NCHW_TO_NHWC, NHWC_TO_NCHW


class Backbone(nn.Module):
    """A timm classifier in two pieces; `tail(head(x))` equals the uncut model to the bit.

    Attributes:
        head: x (B, 3, H, W) -> h (B, C, H', W'), channels first; of a ViT (B, prefix tokens + H' * W', C).
        tail: h -> logits (B, num_classes).
        family: class of the uncut model.
        data_config: timm's data config of the uncut model: input_size (3, H, W), mean, std, ...
    """

    def __init__(self, head: nn.Sequential, tail: nn.Sequential, family: type[nn.Module], data_config: dict):
        super().__init__()
        self.head = head
        self.tail = tail
        self.family = family
        self.data_config = data_config

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes), in float32 even under autocast, for the precision of the losses."""
        return self.tail(self.head(x)).float()


def cut_resnet(model: ResNet, split_idx: int = 2) -> tuple[OrderedDict, OrderedDict]:
    """Return head and tail of a ResNet, cut after stage `split_idx`; 2 has stride 8, as the latent has."""
    stages = [f"layer{number}" for number in range(1, 5)]
    _check_split_idx(split_idx, len(stages))
    stem = ["conv1", "bn1", "act1", "maxpool"]
    ending = [("global_pool", model.global_pool), ("drop", nn.Dropout(model.drop_rate)), ("fc", model.fc)]
    pick = OrderedDict((name, getattr(model, name)) for name in stem + stages)
    head = OrderedDict((name, pick.pop(name)) for name in stem + stages[:split_idx])
    return head, OrderedDict([*pick.items(), *ending])


def cut_convnext(model: ConvNeXt, split_idx: int = 2) -> tuple[OrderedDict, OrderedDict]:
    """Return head and tail of a ConvNeXt, cut after stage `split_idx`; 2 has stride 8, as the latent has."""
    _check_split_idx(split_idx, len(model.stages))
    head = OrderedDict(stem=model.stem)
    head.update((f"stage{index}", model.stages[index]) for index in range(split_idx))
    tail = OrderedDict((f"stage{index}", model.stages[index]) for index in range(split_idx, len(model.stages)))
    tail.update(norm_pre=model.norm_pre, head=model.head)
    return head, tail


def cut_swin(model: SwinTransformer, split_idx: int = 2) -> tuple[OrderedDict, OrderedDict]:
    """Return head and tail of a Swin, cut between the patch merging and the blocks of stage `split_idx`, from 0.

    This is the paper's target: in the timm release it used, patch merging ended the previous stage.
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


def cut_vit(model: VisionTransformer, split_idx: int = 3) -> tuple[OrderedDict, OrderedDict]:
    """Return head and tail of a ViT or DeiT, cut after block `split_idx`; h includes the prefix tokens."""
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
        # These belong to the head.
        for name in ("cls_token", "dist_token", "pos_embed", "reg_token"):
            if name in model._parameters:
                model._parameters[name] = None

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.forward_head(tokens)


def _without(model: nn.Module, names: set[str]) -> nn.Module:
    """Return a model that shares all with `model`, except that the named modules become identities."""
    twin = copy.copy(model)
    twin._modules = {name: nn.Identity() if name in names else part for name, part in model._modules.items()}
    twin._parameters = dict(model._parameters)
    return twin


def _check_split_idx(split_idx: int, stages: int) -> None:
    if split_idx not in range(1, stages):
        raise UserError(
            f"split_idx is {split_idx}; expected 1 to {stages - 1}, the number of stages (of a ViT: blocks) in the head"
        )


CUTS = {ResNet: cut_resnet, ConvNeXt: cut_convnext, SwinTransformer: cut_swin, VisionTransformer: cut_vit}


def cut(model: nn.Module, split_idx: int | None = None) -> Backbone:
    """Cut a timm model; the pieces share its modules.

    Args:
        model: of one of the families in `CUTS`.
        split_idx: stages in the head, of a ViT blocks; None is 2 stages or 3 blocks.

    Raises:
        UserError: a family that cannot be cut (the message lists those that can), or a stage that does not exist.
    """
    family = next((cut_family for kind, cut_family in CUTS.items() if isinstance(model, kind)), None)
    if family is None:
        supported = ", ".join(kind.__name__ for kind in CUTS)
        raise UserError(f"no cut for the family {type(model).__name__}; supported: {supported}")
    head, tail = family(model) if split_idx is None else family(model, split_idx)
    return Backbone(nn.Sequential(head), nn.Sequential(tail), type(model), data_config(model))


@register_model(key="timm_backbone")
def create_backbone(
    name: str, split_idx: int | None = None, new_classifier: int | None = None, **model_kwargs
) -> Backbone:
    """Build a timm model and cut it.

    Args:
        name: timm's model name.
        split_idx: as for `cut`.
        new_classifier: replace the classifier by an untrained one for this number of classes.
        **model_kwargs: further arguments of `create_timm_model`.
    """
    model = create_timm_model(name, **model_kwargs)
    if new_classifier is not None:
        model.reset_classifier(new_classifier)
    return cut(model, split_idx)
