"""Transforms in timm's format, against timm's own."""

import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from misc.datasets.transforms import evaluation_transform, map_transform, training_transform
from misc.deploy.transform_steps import transform_steps
from misc.errors import UserError
from model.classifier import data_config_of
from saliency_maps.cam_loaders import SaliencyMap

MODELS = ["resnet34", "convnext_tiny", "swin_tiny_patch4_window7_224", "vit_small_patch16_224", "vit_tiny_patch16_384"]


@pytest.fixture
def photograph():
    pixels = torch.randint(256, (12, 9, 3), dtype=torch.uint8).numpy()
    return Image.fromarray(pixels).resize((300, 410), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_equals_timms_transform(name, photograph):
    theirs = create_transform(**data_config_of({"name": name}))
    ours = evaluation_transform({"name": name, "weights_path": "not read"})
    assert torch.allclose(ours(photograph), theirs(photograph), atol=1e-6)
    assert [step["op"] for step in transform_steps(ours)] == ["resize", "center_crop", "scale", "normalize"]


def test_a_squashed_image_keeps_its_whole_frame(photograph, monkeypatch):
    squashed = {**data_config_of({"name": "resnet34"}), "crop_mode": "squash", "crop_pct": 1.0}
    monkeypatch.setattr("misc.datasets.transforms.data_config_of", lambda backbone: squashed)
    theirs, ours = create_transform(**squashed), evaluation_transform({"name": "resnet34"})
    assert torch.allclose(ours(photograph), theirs(photograph), atol=1e-6)
    monkeypatch.setitem(squashed, "crop_mode", "border")
    with pytest.raises(UserError, match="resnet34: timm crops its images by 'border'"):
        evaluation_transform({"name": "resnet34"})


@pytest.mark.parametrize("name", MODELS)
def test_training_crops_have_the_models_size(name, photograph):
    image = training_transform({"name": name})(photograph)
    assert image.shape == data_config_of({"name": name})["input_size"] and image.dtype == torch.float32


def test_a_map_and_its_image_are_mirrored_together():
    image = torch.zeros(224, 224, 3, dtype=torch.uint8)
    image[:, :112] = 255
    saliency = SaliencyMap((image[..., 0] / 255)[None])
    transform, sides = map_transform({"name": "resnet34"}), set()
    for _ in range(20):
        x, s = transform(v2.functional.to_pil_image(image.permute(2, 0, 1)), saliency)
        assert torch.equal(x[0] > 0, s[0] > 0.5)
        sides.add(bool(s[0, 0, 0] > 0.5))
    assert sides == {True, False}


def test_small_crops_show_objects_at_the_same_scale_and_maps_follow(photograph):
    large, small = (training_transform({"name": "resnet34"}, (1.0, 1.0), crop) for crop in (None, 112))
    assert small(photograph).shape == (3, 112, 112)
    assert [step.size for step in (large.transforms[0], small.transforms[0])] == [[224, 224]] * 2
    ramp = torch.arange(224, dtype=torch.uint8).expand(3, 224, 224)
    saliency = SaliencyMap(ramp[:1] / 255)
    x, s = map_transform({"name": "resnet34"}, 112)(v2.functional.to_pil_image(ramp), saliency)
    mean, std = data_config_of({"name": "resnet34"})["mean"][0], data_config_of({"name": "resnet34"})["std"][0]
    assert s.shape == (1, 112, 112) and torch.allclose(x[0] * std + mean, s[0], atol=1e-6)


@pytest.mark.parametrize("transform", [training_transform, map_transform])
def test_a_backbone_of_one_size_takes_no_crops(transform):
    with pytest.raises(UserError, match="crop is 112: swin_tiny_patch4_window7_224 takes images of one size only"):
        transform({"name": "swin_tiny_patch4_window7_224"}, crop=112)
