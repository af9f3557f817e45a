"""The table of target layers: what it picks, and the shape its activations arrive in."""

import pytest
import timm

from misc.errors import UserError
from saliency_maps.cam_prep.methods.activations import activations
from saliency_maps.cam_prep.methods.target_layers import FAMILIES, select_target_layers


def names(layers) -> list[str]:
    return [layer.name for layer in layers]


def family_of(teacher) -> str:
    return next(family.__name__ for family in FAMILIES if isinstance(teacher, family))


def test_mixed_layers_are_those_of_the_paper_or_thirds_of_a_vit(teacher):
    expected = {
        "ResNet": ["layer1.0", "layer2.0", "layer3.0"],
        "SwinTransformer": ["layers.1.blocks.0.norm1", "layers.2.blocks.1.norm1", "layers.3.blocks.0.norm1"],
        "SwinTransformerV2": ["layers.1.blocks.0.norm1", "layers.2.blocks.1.norm1", "layers.3.blocks.0.norm1"],
        "ConvNeXt": ["stages.1.blocks.0.norm", "stages.2.blocks.1.norm", "stages.3.blocks.0.norm"],
        "VisionTransformer": ["blocks.1.norm1", "blocks.3.norm1", "blocks.5.norm1"],
    }
    assert names(select_target_layers(teacher, mix_layers=True)) == expected[family_of(teacher)]


def test_the_default_is_the_last_stage(teacher):
    expected = {
        "ResNet": ["layer4.0"],
        "SwinTransformer": ["layers.3.blocks.0.norm1"],
        "SwinTransformerV2": ["layers.3.blocks.0.norm1"],
        "ConvNeXt": ["stages.3.blocks.0.norm"],
        "VisionTransformer": ["blocks.5.norm1"],
    }
    assert names(select_target_layers(teacher)) == expected[family_of(teacher)]


def test_include_first_adds_the_first_stage(teacher):
    expected = {
        "SwinTransformer": "layers.0",
        "SwinTransformerV2": "layers.0",
        "ConvNeXt": "stages.0.blocks.0.norm",
        "VisionTransformer": "blocks.0.norm1",
    }
    if family_of(teacher) in expected:
        assert names(select_target_layers(teacher, True, include_first=True))[0] == expected[family_of(teacher)]
    else:
        with pytest.raises(UserError, match="begin with its first stage"):
            select_target_layers(teacher, True, include_first=True)


def test_activations_come_channels_first(teacher, images):
    expected = {
        "ResNet": [(16, 16, 16), (24, 8, 8), (32, 4, 4)],
        "SwinTransformer": [(48, 8, 8), (96, 4, 4), (192, 2, 2)],
        "SwinTransformerV2": [(48, 8, 8), (96, 4, 4), (192, 2, 2)],
        "ConvNeXt": [(24, 8, 8), (32, 4, 4), (48, 2, 2)],
        "VisionTransformer": [(24, 4, 4)] * 3,
    }
    layers = select_target_layers(teacher, mix_layers=True)
    shapes = [tuple(activation.shape[1:]) for activation in activations(teacher, layers, images)]
    assert shapes == expected[family_of(teacher)]


def test_a_path_overrides_the_choice(teacher):
    path = next(name for name, _ in teacher.named_modules() if name.count(".") == 1)
    assert names(select_target_layers(teacher, target_layer=path)) == [path]


def test_an_unknown_path_names_the_nearest(resnet):
    with pytest.raises(UserError, match=r"no module 'layer4\.0\.bn9'; did you mean 'layer4\.0\.bn"):
        select_target_layers(resnet, target_layer="layer4.0.bn9")


def test_options_that_exclude_each_other_are_refused(resnet):
    with pytest.raises(UserError, match="--mix_layers"):
        select_target_layers(resnet, include_first=True)
    with pytest.raises(UserError, match="give one of them"):
        select_target_layers(resnet, mix_layers=True, target_layer="layer4")


def test_an_unsupported_model_lists_the_supported_ones():
    model = timm.create_model("test_mambaout", num_classes=2)
    with pytest.raises(UserError, match=", ".join(family.__name__ for family in FAMILIES)):
        select_target_layers(model)
