import pytest
import torch

RESNET = {
    "name": "resnet18",
    "num_classes": 10,
    "layers": [1, 1, 1, 1],
    "channels": [8, 16, 24, 32],
    "pretrained_cfg_overlay": {"input_size": [3, 64, 64]},
}
SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "num_classes": 10,
    "img_size": 64,
    "window_size": 4,
    "embed_dim": 16,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 4, 4],
    "pretrained_cfg_overlay": {"input_size": [3, 64, 64]},
}
CONVNEXT = {
    "name": "convnext_tiny",
    "num_classes": 10,
    "dims": [8, 16, 24, 32],
    "depths": [1, 1, 2, 1],
    "pretrained_cfg_overlay": {"input_size": [3, 64, 64]},
}
VIT = {
    "name": "vit_tiny_patch16_224",
    "num_classes": 10,
    "img_size": 64,
    "embed_dim": 24,
    "depth": 4,
    "num_heads": 2,
    "pretrained_cfg_overlay": {"input_size": [3, 64, 64]},
}
DISTILLED = {**VIT, "name": "deit_tiny_distilled_patch16_224"}
BACKBONES = {"resnet": RESNET, "swin": SWIN, "convnext": CONVNEXT, "vit": VIT, "distilled": DISTILLED}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=BACKBONES.values(), ids=BACKBONES)
def backbone_arguments(request) -> dict:
    return dict(request.param)
