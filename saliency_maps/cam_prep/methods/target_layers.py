"""Target layers of saliency maps, by family of timm models."""

from collections.abc import Callable
from typing import NamedTuple

from timm.models import ConvNeXt, ResNet, SwinTransformer, SwinTransformerV2, VisionTransformer
from torch import Tensor, nn

from misc.errors import UserError, did_you_mean
from saliency_maps.cam_prep.methods.layout import Layout, find_layouts


class Family(NamedTuple):
    """A family's target layers: those of --mix_layers, the single default, and what --include_first adds."""

    mixed: Callable[[nn.Module], list[nn.Module]]
    last: Callable[[nn.Module], nn.Module]
    first_stage: Callable[[nn.Module], nn.Module] | None


_SWIN = Family(
    mixed=lambda model: [stage.blocks[-1].norm1 for stage in model.layers[1:4]],
    last=lambda model: model.layers[-1].blocks[-1].norm1,
    first_stage=lambda model: model.layers[0],
)
# ResNet's mixed layers begin with its first stage, so there is none to add. A ViT has no stages: thirds of its depth.
FAMILIES: dict[type[nn.Module], Family] = {
    ResNet: Family(
        mixed=lambda model: [model.layer1[-1], model.layer2[-1], model.layer3[-1]],
        last=lambda model: model.layer4[-1],
        first_stage=None,
    ),
    ConvNeXt: Family(
        mixed=lambda model: [stage.blocks[-1].norm for stage in model.stages[1:4]],
        last=lambda model: model.stages[-1].blocks[-1].norm,
        first_stage=lambda model: model.stages[0].blocks[-1].norm,
    ),
    SwinTransformer: _SWIN,
    SwinTransformerV2: _SWIN,
    VisionTransformer: Family(
        mixed=lambda model: [model.blocks[len(model.blocks) * third // 3 - 1].norm1 for third in (1, 2, 3)],
        last=lambda model: model.blocks[-1].norm1,
        first_stage=lambda model: model.blocks[0].norm1,
    ),
}


class TargetLayer(NamedTuple):
    """A module of the teacher, its path and the layout of its output."""

    name: str
    module: nn.Module
    layout: Layout

    def channels_first(self, output: Tensor) -> Tensor:
        """Return the layer's output as (B, C, H, W)."""
        return self.layout.channels_first(output)


def select_target_layers(
    model: nn.Module,
    mix_layers: bool = False,
    include_first: bool = False,
    target_layer: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> list[TargetLayer]:
    """Return the layers whose activations form the map.

    Args:
        model: a timm model of one of `FAMILIES`.
        mix_layers: take three depths, as for the paper's maps, instead of the last stage alone.
        include_first: add the first stage to those three.
        target_layer: path of a module of `model`, instead of the family's choice.
        image_size: (height, width) of the images to come; None is the model's own.

    Raises:
        UserError: an unsupported model, a path that is not in it, a layer without a map of features, or options that
            exclude each other.
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
    layers = {paths[module]: module for module in modules}
    layouts = find_layouts(model, layers, image_size)
    return [TargetLayer(*layer, layout) for layer, layout in zip(layers.items(), layouts, strict=True)]


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
