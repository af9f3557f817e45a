from functools import partial

import pytest
import torch

from misc.errors import UserError
from model.decoder import ConvNeXtDecoder, ResNetDecoder, SwinDecoder, ViTDecoder
from model.encoder import ResidualEncoder
from model.entropy import Checkerboard, FactorizedPrior, MeanScaleHyperprior
from model.split import create_split_classifier, load_into
from model.weights import digest, save_weights
from tests.model.conftest import BACKBONES

SMALL_DECODERS = {
    "resnet": partial(ResNetDecoder, width=16, out_channels=16, bottleneck=False),
    "swin": partial(SwinDecoder, width=16, out_channels=64, feature_size=8, window_size=4, num_heads=(2, 4)),
    "convnext": partial(ConvNeXtDecoder, width=16, out_channels=16, depth=1),
    "vit": partial(ViTDecoder, width=16, out_channels=24, feature_size=4, depth=1, num_heads=2),
    "deit": partial(ViTDecoder, width=16, out_channels=24, feature_size=4, prefix_tokens=2, depth=1, num_heads=2),
}


def build(backbone: dict, prior=FactorizedPrior, trained_parts=None, **decoder):
    family = next(name for name in SMALL_DECODERS if backbone["name"].startswith(name))
    return create_split_classifier(
        ResidualEncoder(), prior(), SMALL_DECODERS[family](**decoder), backbone, trained_parts
    )


@pytest.fixture(params=[FactorizedPrior, MeanScaleHyperprior])
def student(request, backbone_arguments):
    student = build(backbone_arguments, request.param).eval()
    with torch.no_grad():  # a fresh encoder gives latents that all round to zero
        student.encoder[-1].skip.weight *= 100
    student.update(force=True, update_quantiles=True)
    return student


def test_bytes_carry_the_quantised_latent_exactly(student):
    x = torch.randn(4, 3, 64, 64)
    streams = student.encode(x)
    with torch.no_grad():
        y = student.encoder(x)
        y_hat = student.entropy_model.decompress(student.entropy_model.compress(y), y.shape[-2:])
        assert y_hat.unique().numel() > 10
        assert torch.equal(student.decode(streams), student.tail(student.decoder(y_hat)))
        if isinstance(student.entropy_model, FactorizedPrior):
            assert torch.equal(student.decode(streams), student(x))


def test_a_batch_gives_the_streams_of_single_images(student):
    x = torch.randn(3, 3, 64, 64)
    assert student.encode(x) == [student.encode(image[None])[0] for image in x]


def test_weights_without_tail_load_with_their_tables(student, backbone_arguments, tmp_path):
    save_weights(student, tmp_path / "student.safetensors", digest(student.tail))
    other = build(backbone_arguments, type(student.entropy_model)).eval()
    other.tail.load_state_dict(student.tail.state_dict())
    load_into(other, tmp_path / "student.safetensors")
    x = torch.randn(2, 3, 64, 64)
    assert other.encode(x) == student.encode(x)
    assert torch.equal(other.decode(other.encode(x)), student.decode(student.encode(x)))


@pytest.mark.parametrize("prior", [FactorizedPrior, Checkerboard])
def test_parts_of_one_student_serve_another_backbone(prior, tmp_path):
    student = build(BACKBONES["resnet"], prior).eval()
    with torch.no_grad():  # a fresh encoder gives latents that all round to zero
        student.encoder[-1].skip.weight *= 100
    student.update(force=True, update_quantiles=True)
    save_weights(student, tmp_path / "first.safetensors", digest(student.tail))
    parts = {"weights_path": str(tmp_path / "first.safetensors"), "modules": ["encoder", "entropy_model"]}
    for backbone in BACKBONES.values():
        other = build(backbone, prior, parts).eval()
        assert digest(other.encoder) == digest(student.encoder)
        assert digest(other.entropy_model) == digest(student.entropy_model)
        x = torch.randn(2, 3, 64, 64)
        streams = student.encode(x)
        assert other.encode(x) == streams and len(set(streams)) == 2
        with torch.no_grad():
            assert (other.decode(streams) - other(x)).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("prior", "modules", "message"),
    [
        (FactorizedPrior, ["encodr"], "no part 'encodr'; did you mean 'encoder'"),
        (MeanScaleHyperprior, ["entropy_model"], "does not fit"),
    ],
)
def test_parts_that_cannot_be_loaded_are_named(tmp_path, prior, modules, message):
    student = build(BACKBONES["resnet"])
    save_weights(student, tmp_path / "first.safetensors", digest(student.tail))
    with pytest.raises(UserError, match=message):
        build(BACKBONES["resnet"], prior, {"weights_path": str(tmp_path / "first.safetensors"), "modules": modules})


def test_weights_of_another_backbone_are_refused(student, backbone_arguments, tmp_path):
    save_weights(student, tmp_path / "student.safetensors", digest(student.tail))
    other = build(backbone_arguments, type(student.entropy_model))
    with pytest.raises(UserError, match="backbone with other weights or another cut"):
        load_into(other, tmp_path / "student.safetensors")


def test_a_tail_that_was_trained_is_kept(student, backbone_arguments, tmp_path):
    before = digest(student.tail)
    with torch.no_grad():
        next(student.tail.parameters()).add_(1)
    save_weights(student, tmp_path / "student.safetensors", before)
    other = build(backbone_arguments, type(student.entropy_model))
    load_into(other, tmp_path / "student.safetensors")
    assert digest(other.tail) == digest(student.tail)


def test_parts_that_do_not_fit_are_named_with_both_shapes(backbone_arguments):
    with pytest.raises(UserError, match=r"decoder gives h_hat of \(.*\b12\b.*wants h of"):
        build(backbone_arguments, out_channels=12)
