"""`decoder: auto` fits every backbone, and is the paper's decoder for the paper's."""

import pytest
import torch
from torch import nn

from misc.errors import UserError
from model.backbone import create_backbone
from model.blueprint import decoder_for
from model.decoder import ConvNeXtDecoder, ResNetDecoder, SwinDecoder, ViTDecoder
from model.encoder import ResidualEncoder
from model.entropy import FactorizedPrior
from model.split import create_split_classifier

SMALL = [
    {"name": "resnet10t"},
    {"name": "resnet26t"},
    {"name": "convnext_atto"},
    {"name": "swin_tiny_patch4_window7_224", "depths": (1, 1, 1, 1)},
    {"name": "swin_tiny_patch4_window7_224", "depths": (1, 1, 1, 1), "img_size": 256, "window_size": 8},
    {"name": "vit_tiny_patch16_224", "depth": 4},
    {"name": "deit_tiny_distilled_patch16_224", "depth": 4},
    {"name": "vit_wee_patch16_reg1_gap_256", "depth": 4},
]
PUBLISHED = {
    "resnet50": (ResNetDecoder, 2_091_584),
    "convnext_base": (ConvNeXtDecoder, 2_003_200),
    "swin_s3_base_224": (SwinDecoder, 2_058_974),
    "deit_small_patch16_224": (ViTDecoder, 1_871_424),
}


@pytest.mark.parametrize("arguments", SMALL, ids=lambda arguments: "-".join(map(str, arguments.values())))
def test_a_name_is_enough(arguments):
    student = create_split_classifier(ResidualEncoder(), FactorizedPrior(), "auto", {**arguments, "num_classes": 5})
    backbone = create_backbone(**arguments)
    x = torch.zeros(1, *backbone.data_config["input_size"])
    assert student.eval()(x).shape == (1, 5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_papers_decoder(name):
    kind, parameters = PUBLISHED[name]
    decoder = decoder_for(create_backbone(name), 48, "auto")
    assert isinstance(decoder, kind)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == parameters


def test_given_arguments_and_given_decoders_win():
    backbone = create_backbone("resnet10t")
    narrow = decoder_for(backbone, 24, "auto", {"width": 32, "depth": 1})
    assert narrow(torch.zeros(1, 24, 28, 28)).shape == backbone.eval().head(torch.zeros(1, 3, 224, 224)).shape
    assert len(narrow) == 3
    own = nn.Conv2d(48, 128, 1)
    assert decoder_for(backbone, 48, own) is own


@pytest.mark.parametrize(
    ("arguments", "decoder", "blueprint", "message"),
    [
        ({"name": "resnet10t"}, "automatic", None, "decoder is 'automatic'; expected a decoder or 'auto'"),
        ({"name": "resnet10t"}, "auto", {"widht": 32}, "blueprint .* of ResNetDecoder: .*'widht'"),
        ({"name": "vit_tiny_patch16_224", "depth": 4}, "auto", {"num_heads": 5}, "'num_heads': 5} of ViTDecoder: "),
        ({"name": "resnet10t"}, nn.Identity(), {"width": 32}, "blueprint is for decoder: auto"),
        ({"name": "resnet10t", "split_idx": 3}, "auto", None, "at 1/8 of .*, the cut of this ResNet is at 1/16"),
        ({"name": "vit_small_patch32_224"}, "auto", None, "VisionTransformer is at 1/32: give a decoder"),
    ],
)
def test_what_has_no_blueprint_is_named(arguments, decoder, blueprint, message):
    with pytest.raises(UserError, match=message):
        decoder_for(create_backbone(**arguments), 48, decoder, blueprint)
