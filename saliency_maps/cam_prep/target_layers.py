"""Which layers of a teacher a saliency map looks at, per family of timm models."""

import math
from collections.abc import Callable
from typing import NamedTuple

from timm.layers import LayerNorm2d, Mlp
from timm.models import ConvNeXt, ResNet, SwinTransformer, SwinTransformerV2, VisionTransformer
from torch import Tensor, nn

from misc.errors import UserError, did_you_mean

OTHER = "choose another layer"


class Family(NamedTuple):
    """One family: the layers to mix, the one layer looked at otherwise, what to add in front.

    `layout` tells how a module's output is laid out: "NCHW", "NHWC" or, for tokens, "NLC".
    """

    mixed: Callable[[nn.Module], list[nn.Module]]
    last: Callable[[nn.Module], nn.Module]
    first_stage: Callable[[nn.Module], nn.Module] | None
    layout: Callable[[nn.Module], str]


def _convnext_layout(module: nn.Module) -> str:
    """Within a ConvNeXt's block normalisation and MLP are channels last, unless the model was built with conv_mlp."""
    channels_last = isinstance(module, nn.LayerNorm | nn.Linear | Mlp) and not isinstance(module, LayerNorm2d)
    return "NHWC" if channels_last else "NCHW"


_SWIN = Family(
    mixed=lambda model: [stage.blocks[-1].norm1 for stage in model.layers[1:4]],
    last=lambda model: model.layers[-1].blocks[-1].norm1,
    first_stage=lambda model: model.layers[0],
    layout=lambda module: "NHWC",
)
# ResNet's mixed layers begin with its first stage, so there is none to add. A ViT has no stages: thirds of its depth.
FAMILIES: dict[type[nn.Module], Family] = {
    ResNet: Family(
        mixed=lambda model: [model.layer1[-1], model.layer2[-1], model.layer3[-1]],
        last=lambda model: model.layer4[-1],
        first_stage=None,
        layout=lambda module: "NCHW",
    ),
    ConvNeXt: Family(
        mixed=lambda model: [stage.blocks[-1].norm for stage in model.stages[1:4]],
        last=lambda model: model.stages[-1].blocks[-1].norm,
        first_stage=lambda model: model.stages[0].blocks[-1].norm,
        layout=_convnext_layout,
    ),
    SwinTransformer: _SWIN,
    SwinTransformerV2: _SWIN,
    VisionTransformer: Family(
        mixed=lambda model: [model.blocks[len(model.blocks) * third // 3 - 1].norm1 for third in (1, 2, 3)],
        last=lambda model: model.blocks[-1].norm1,
        first_stage=lambda model: model.blocks[0].norm1,
        layout=lambda module: "NLC",
    ),
}


class TargetLayer(NamedTuple):
    """A module of the teacher by its path, and how its activations are laid out.

    Attributes:
        name: path in the model.
        module: the layer.
        layout: "NCHW", "NHWC" or "NLC".
        prefix_tokens: of "NLC", the tokens in front of the patches'.
    """

    name: str
    module: nn.Module
    layout: str = "NCHW"
    prefix_tokens: int = 0

    @property
    def channel_dim(self) -> int:
        """Which dimension of the layer's output are the channels."""
        return self.layout.index("C")

    def channels_first(self, activations: Tensor) -> Tensor:
        """Returns the layer's activations as (B, C, H, W); tokens must be of a square grid.

        Raises:
            UserError: the layer's output is no map of features.
        """
        if activations.ndim != len(self.layout):
            raise UserError(
                f"layer '{self.name}' gives shape {tuple(activations.shape)}, not a map of features: {OTHER}"
            )
        if self.layout == "NHWC":
            return activations.permute(0, 3, 1, 2)
        if self.layout == "NCHW":
            return activations
        patches = activations[:, self.prefix_tokens :].transpose(1, 2)
        side = math.isqrt(patches.shape[2])
        if side**2 != patches.shape[2]:
            raise UserError(f"layer '{self.name}' gives {patches.shape[2]} patches, not a square of them: {OTHER}")
        return patches.unflatten(2, (side, side))


def select_target_layers(
    model: nn.Module, mix_layers: bool = False, include_first: bool = False, target_layer: str | None = None
) -> list[TargetLayer]:
    """Returns the layers whose activations make the map.

    Args:
        model: a timm model of one of `FAMILIES`.
        mix_layers: three depths, as in the paper's maps, in place of the last stage alone.
        include_first: add the first stage to those three.
        target_layer: a module path of `model` in place of the family's choice.

    Raises:
        UserError: an unsupported model, a path that is not in it, or options that exclude each other.
    """
    family = _family(model)
    paths = {module: path for path, module in model.named_modules()}
    if include_first and not mix_layers:
        raise UserError("--include_first adds a layer to those of --mix_layers: give both")
    if target_layer is not None:
        if mix_layers:
            raise UserError("--target_layer names the one layer and --mix_layers mixes several: give one of them")
        modules = [_module_at(model, target_layer)]
    else:
        modules = family.mixed(model) if mix_layers else [family.last(model)]
    if include_first:
        modules = [_first_stage(model, family), *modules]
    prefix_tokens = getattr(model, "num_prefix_tokens", 0)
    return [TargetLayer(paths[module], module, family.layout(module), prefix_tokens) for module in modules]


def _family(model: nn.Module) -> Family:
    for model_class, family in FAMILIES.items():
        if isinstance(model, model_class):
            return family
    supported = ", ".join(model_class.__name__ for model_class in FAMILIES)
    raise UserError(f"no target layers are known for {type(model).__name__}; supported: {supported}")


def _module_at(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    modules.pop("")
    if path not in modules:
        raise UserError(f"{type(model).__name__} has no module '{path}'{did_you_mean(path, modules)}")
    return modules[path]


def _first_stage(model: nn.Module, family: Family) -> nn.Module:
    if family.first_stage is None:
        name = type(model).__name__
        raise UserError(f"--include_first adds nothing to {name}, whose mixed layers begin with its first stage")
    return family.first_stage(model)
