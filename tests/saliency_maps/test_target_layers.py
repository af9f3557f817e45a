"""The table of target layers: what it picks, and the shape its activations arrive in."""

import pytest
import timm
from timm.models.swin_transformer import SwinTransformer

from misc.errors import UserError
from saliency_maps.cam_prep.activations import activations
from saliency_maps.cam_prep.target_layers import FAMILIES, select_target_layers


def names(layers) -> list[str]:
    return [layer.name for layer in layers]


def test_mixed_layers_are_those_of_the_paper(teacher):
    expected = {
        "ResNet": ["layer1.0", "layer2.0", "layer3.0"],
        "SwinTransformer": ["layers.1.blocks.0.norm1", "layers.2.blocks.1.norm1", "layers.3.blocks.0.norm1"],
    }
    assert names(select_target_layers(teacher, mix_layers=True)) == expected[type(teacher).__name__]


def test_the_default_is_the_last_stage(teacher):
    expected = {"ResNet": ["layer4.0"], "SwinTransformer": ["layers.3.blocks.0.norm1"]}
    assert names(select_target_layers(teacher)) == expected[type(teacher).__name__]


def test_include_first_adds_the_first_stage(teacher):
    if isinstance(teacher, SwinTransformer):
        assert names(select_target_layers(teacher, True, include_first=True))[0] == "layers.0"
    else:
        with pytest.raises(UserError, match="begin with its first stage"):
            select_target_layers(teacher, True, include_first=True)


def test_activations_come_channels_first(teacher, images):
    include_first = isinstance(teacher, SwinTransformer)
    layers = select_target_layers(teacher, mix_layers=True, include_first=include_first)
    shapes = [tuple(activation.shape[1:]) for activation in activations(teacher, layers, images)]
    if include_first:
        assert shapes == [(24, 16, 16), (48, 8, 8), (96, 4, 4), (192, 2, 2)]
    else:
        assert shapes == [(16, 16, 16), (24, 8, 8), (32, 4, 4)]


def test_a_path_overrides_the_choice(teacher):
    path = next(name for name, _ in teacher.named_modules() if name.count(".") == 1)
    assert names(select_target_layers(teacher, target_layer=path)) == [path]


def test_an_unknown_path_names_the_nearest(resnet):
    with pytest.raises(UserError, match=r"no module 'layer4\.0\.bn9'; did you mean 'layer4\.0\.bn"):
        select_target_layers(resnet, target_layer="layer4.0.bn9")


def test_a_layer_without_positions_is_refused(resnet, images):
    layers = select_target_layers(resnet, target_layer="fc")
    with pytest.raises(UserError, match=r"layer 'fc' gives shape \(4, 3\)"):
        activations(resnet, layers, images)


def test_options_that_exclude_each_other_are_refused(resnet):
    with pytest.raises(UserError, match="--mix_layers"):
        select_target_layers(resnet, include_first=True)
    with pytest.raises(UserError, match="give one of them"):
        select_target_layers(resnet, mix_layers=True, target_layer="layer4")


def test_an_unsupported_model_lists_the_supported_ones():
    model = timm.create_model("test_vit", num_classes=2)
    with pytest.raises(UserError, match=", ".join(family.__name__ for family in FAMILIES)):
        select_target_layers(model)
