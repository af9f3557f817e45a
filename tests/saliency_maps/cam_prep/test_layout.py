"""Every layer of every family comes channels first, and the positions where they were."""

import pytest
import timm
import torch
from torch import nn

from misc.errors import UserError
from saliency_maps.cam_prep.methods.activations import activations
from saliency_maps.cam_prep.methods.layout import Layout, find_layouts
from saliency_maps.cam_prep.methods.target_layers import select_target_layers


def layout_of(model: nn.Module, path: str, image_size: tuple[int, int] | None = None) -> Layout:
    return find_layouts(model, {path: model.get_submodule(path)}, image_size)[0]


def narrow_convnext(name: str = "convnext_tiny", **kwargs) -> nn.Module:
    return timm.create_model(name, dims=(16, 24, 32, 48), depths=(1, 1, 1, 1), **kwargs).eval()


def narrow_vit(**kwargs) -> nn.Module:
    return timm.create_model("deit_tiny_distilled_patch16_224", embed_dim=24, depth=3, num_heads=2, **kwargs).eval()


def narrow_swin(**kwargs) -> nn.Module:
    sizes = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 4), "window_size": 4}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes, **kwargs).eval()


@pytest.mark.parametrize(
    ("model", "order_of"),
    [
        (narrow_convnext(), {"": "NCHW", ".conv_dw": "NCHW", ".norm": "NHWC", ".mlp": "NHWC", ".mlp.act": "NHWC"}),
        (narrow_convnext(conv_mlp=True), {"": "NCHW", ".norm": "NCHW", ".mlp.fc1": "NCHW", ".mlp.act": "NCHW"}),
        (narrow_convnext("convnextv2_tiny"), {".mlp": "NHWC", ".mlp.grn": "NHWC", ".mlp.fc1": "NHWC"}),
        (narrow_convnext("convnextv2_tiny", conv_mlp=True), {".mlp": "NCHW", ".mlp.grn": "NCHW"}),
    ],
    ids=["v1", "v1-conv", "v2", "v2-conv"],
)
def test_within_a_convnext_the_order_changes(model, order_of):
    for path, order in order_of.items():
        assert layout_of(model, f"stages.2.blocks.0{path}").order == order


def test_as_many_channels_as_rows_are_not_mistaken():
    """64 channels of 64 x 64 at 256 x 256 pixels, channels first and channels last."""
    model = timm.create_model("convnext_tiny", dims=(64,) * 4, depths=(1,) * 4).eval()
    assert layout_of(model, "stages.0", (256, 256)).order == "NCHW"
    assert layout_of(model, "stages.0.blocks.0.norm", (256, 256)).order == "NHWC"


def test_a_swin_is_channels_last_but_for_the_first_convolution_and_the_tokens_of_its_mlps():
    model = narrow_swin(img_size=64)
    assert layout_of(model, "layers.1.blocks.0") == Layout("NHWC", (8, 8))
    assert layout_of(model, "patch_embed.proj") == Layout("NCHW", (16, 16))
    assert layout_of(model, "layers.1.blocks.0.mlp.fc1") == Layout("NLC", (8, 8))


def test_images_need_not_be_square():
    assert layout_of(narrow_swin(img_size=(64, 96)), "layers.2.blocks.0.norm1") == Layout("NHWC", (4, 6))
    vit = narrow_vit(img_size=(64, 96))
    assert layout_of(vit, "blocks.1.norm1") == Layout("NLC", (4, 6), prefix_tokens=2)
    assert layout_of(vit, "patch_embed") == Layout("NLC", (4, 6))
    assert layout_of(narrow_vit(dynamic_img_size=True), "blocks.1", (32, 80)) == Layout("NLC", (2, 5), prefix_tokens=2)


def test_patches_lie_where_they_were_cut_from():
    """The patch that changes is the one whose pixels do."""
    vit = narrow_vit(img_size=(64, 96))
    (layer,) = select_target_layers(vit, target_layer="norm_pre")
    images = torch.zeros(2, 3, 64, 96)
    images[1, :, 32:48, 64:80] = 1
    (features,) = activations(vit, [layer], images)
    changed = (features[1] != features[0]).any(dim=0)
    assert changed.nonzero().tolist() == [[2, 4]]


def test_channels_come_first():
    output = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert Layout("NCHW", (3, 4)).channels_first(output) is output
    assert torch.equal(Layout("NHWC", (2, 3)).channels_first(output)[0, :, 1, 2], output[0, 1, 2])
    tokens = torch.arange(2 + 6.0)[None, :, None]
    assert Layout("NLC", (2, 3), 2).channels_first(tokens).tolist() == [[[[2, 3, 4], [5, 6, 7]]]]


def test_looking_changes_nothing(resnet):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    resnet.train()
    layout_of(resnet, "layer2")
    assert resnet.training and not resnet.layer2._forward_hooks
    assert all(torch.equal(tensor, state[name]) for name, tensor in resnet.state_dict().items())
    resnet.eval()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fc", r"layer 'fc' gives shape \(1, 3\) for one image, no map of features"),
        ("global_pool.pool", r"gives shape \(1, 48, 1, 1\) for one image"),
    ],
)
def test_a_layer_without_positions_is_refused(resnet, path, message):
    with pytest.raises(UserError, match=message):
        layout_of(resnet, path)


def test_windows_and_what_does_not_run_are_refused():
    model = narrow_swin(img_size=64)
    with pytest.raises(UserError, match=r"layers\.0\.blocks\.0\.attn' gives shape \(16, 16, 24\)"):
        layout_of(model, "layers.0.blocks.0.attn")
    with pytest.raises(UserError, match="'idle' takes no part in the forward pass"):
        find_layouts(model, {"idle": nn.Identity()})
