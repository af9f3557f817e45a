"""Small random teachers and small trees of images."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

NUM_CLASSES = 3


def build_resnet() -> torch.nn.Module:
    return timm.create_model(
        "resnet18",
        num_classes=NUM_CLASSES,
        channels=(16, 24, 32, 48),
        layers=(1, 1, 1, 1),
        zero_init_last=False,
    )


def build_swin() -> torch.nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=NUM_CLASSES,
        img_size=64,
        window_size=4,
        embed_dim=24,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 4),
    )


def build_swin_v2() -> torch.nn.Module:
    model = timm.create_model(
        "swinv2_tiny_window8_256",
        num_classes=NUM_CLASSES,
        img_size=64,
        window_size=4,
        embed_dim=24,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 4),
    )
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.5)  # zero otherwise, and with it every target layer
    return model


def build_convnext() -> torch.nn.Module:
    return timm.create_model(
        "convnext_tiny", num_classes=NUM_CLASSES, dims=(16, 24, 32, 48), depths=(1, 1, 2, 1), ls_init_value=0.5
    )


def build_vit() -> torch.nn.Module:
    return timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=NUM_CLASSES, img_size=64, embed_dim=24, depth=6, num_heads=2
    )


@pytest.fixture(
    scope="session",
    params=[build_resnet, build_swin, build_swin_v2, build_convnext, build_vit],
    ids=["resnet", "swin", "swin_v2", "convnext", "vit"],
)
def teacher(request) -> torch.nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


@pytest.fixture(scope="session")
def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_resnet().eval()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 2, 1])


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of two RGB images of different sizes; one is greyscale and one CMYK."""
    random = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("ant", "bee", "cat"):
        (root / name).mkdir(parents=True)
        for index, size in enumerate([(70, 80), (90, 64)]):
            pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    Image.open(root / "bee" / "0.png").convert("L").save(root / "bee" / "0.png")
    Image.open(root / "cat" / "1.png").convert("CMYK").save(root / "cat" / "1.jpg")
    (root / "cat" / "1.png").unlink()
    return root
