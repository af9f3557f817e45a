import pytest
import torch
from safetensors.torch import save_file

from misc.errors import UserError
from model.backbone import create_backbone, cut
from model.classifier import create_timm_model


@pytest.mark.parametrize("split_idx", [1, 2, 3])
def test_tail_of_head_is_the_uncut_model_to_the_bit(backbone_arguments, split_idx):
    model = create_timm_model(**backbone_arguments).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        backbone = cut(model, split_idx)
        assert torch.equal(backbone.tail(backbone.head(x)), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("swin_s3_tiny_224", (1, 384, 14, 14)),
        ("swin_tiny_patch4_window7_224", (1, 384, 14, 14)),
        ("swin_s3_base_224", (1, 384, 14, 14)),
        ("resnet50", (1, 512, 28, 28)),
        ("resnet18", (1, 128, 28, 28)),
        ("convnext_tiny", (1, 192, 28, 28)),
        ("convnext_base", (1, 256, 28, 28)),
        ("deit_small_patch16_224", (1, 197, 384)),
    ],
)
def test_full_size_models_are_cut_where_the_paper_cuts(name, shape):
    model = create_timm_model(name).eval()
    backbone = cut(model)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        h = backbone.head(x)
        assert h.shape == shape
        assert torch.equal(backbone.tail(h), model(x))


def test_pieces_hold_every_parameter_once(backbone_arguments):
    model = create_timm_model(**backbone_arguments)
    backbone = create_backbone(**backbone_arguments)
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "size"), [("resnet18", 96), ("convnext_atto", 160)])
def test_convolutional_models_are_cut_at_any_input_size(name, size):
    model = create_timm_model(name).eval()
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        backbone = cut(model)
        h = backbone.head(x)
        assert h.shape[2:] == (size // 8, size // 8)
        assert torch.equal(backbone.tail(h), model(x))


def test_the_data_config_follows_the_image_size():
    arguments = {"name": "swin_tiny_patch4_window7_224", "img_size": 128, "window_size": 4, "depths": [1, 1, 1, 1]}
    assert tuple(create_backbone(**arguments).data_config["input_size"]) == (3, 128, 128)


def test_logits_are_float32_under_autocast(backbone_arguments):
    backbone = create_backbone(**backbone_arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert backbone(torch.randn(1, 3, 64, 64)).dtype == torch.float32


def test_head_and_tail_of_a_vit_do_not_hold_each_others_tokens(backbone_arguments):
    backbone = create_backbone(**backbone_arguments)
    shared = set(map(id, backbone.head.parameters())) & set(map(id, backbone.tail.parameters()))
    assert not shared


def test_a_new_classifier_leaves_the_rest_as_it_was(backbone_arguments, tmp_path):
    model = create_timm_model(**backbone_arguments)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    weights = str(tmp_path / "model.safetensors")
    backbone = create_backbone(**backbone_arguments, weights_path=weights, new_classifier=3).eval()
    assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    own = dict(cut(model).head.state_dict())
    assert all(torch.equal(own[name], tensor) for name, tensor in backbone.head.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "swin_s3_bas_224"}, "did you mean 'swin_s3_base_224'"),
        ({"name": "resnet18", "chanels": (1, 2, 3, 4)}, "chanels"),
        ({"name": "resnet18", "weights_path": "/nowhere/x.safetensors"}, "no weights at /nowhere/x.safetensors"),
        ({"name": "vgg11"}, "supported: ResNet, ConvNeXt, SwinTransformer, VisionTransformer"),
        ({"name": "resnet18", "split_idx": 4}, "expected 1 to 3"),
        ({"name": "deit_tiny_patch16_224", "split_idx": 12}, "expected 1 to 11"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        create_backbone(**arguments)
