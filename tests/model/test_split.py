import pytest
import torch

from misc import bitstream
from misc.errors import UserError
from misc.weights import digest, load_into, save_weights
from model.decoder import ResNetDecoder, SwinDecoder
from model.encoder import ResidualEncoder
from model.entropy import FactorizedPrior, MeanScaleHyperprior
from model.split import create_split_classifier


def build(backbone: dict, prior=FactorizedPrior, **decoder):
    if backbone["name"].startswith("resnet"):
        decoder = ResNetDecoder(width=16, **{"out_channels": 16, **decoder})
    else:
        sizes = {"feature_size": 8, "window_size": 4, "num_heads": (2, 4)}
        decoder = SwinDecoder(width=16, **{"out_channels": 64, **sizes, **decoder})
    return create_split_classifier(ResidualEncoder(), prior(), decoder, backbone)


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
    strings, sizes = zip(*map(bitstream.unpack, streams), strict=True)
    with torch.no_grad():
        y_hat = student.entropy_model(student.encoder(x))
        assert y_hat.unique().numel() > 10
        assert torch.equal(student.entropy_model.decompress(list(strings), sizes[0]), y_hat)
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


def test_weights_of_another_backbone_are_refused(student, backbone_arguments, tmp_path):
    save_weights(student, tmp_path / "student.safetensors", digest(student.tail))
    other = build(backbone_arguments, type(student.entropy_model))
    with pytest.raises(UserError, match="backbone with other weights"):
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
    with pytest.raises(UserError, match=r"decoder gives h_hat of \(12, .*wants h of"):
        build(backbone_arguments, out_channels=12)
