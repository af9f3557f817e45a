import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from model import entropy
from model.coding.bitstream import BitstreamError, Stream, pack, unpack
from model.decoder import ResNetDecoder, SwinDecoder
from model.encoder import ResidualEncoder
from model.entropy import FactorizedPrior, MeanScaleHyperprior
from model.halves import EdgeHalf, ServerHalf, fingerprint_of
from model.split import create_split_classifier
from tests.golden.make_golden import ONE_RATE as PRIORS
from tests.model.conftest import RESNET, SWIN


@pytest.fixture(scope="module", params=[FactorizedPrior, MeanScaleHyperprior])
def student(request):
    torch.manual_seed(0)
    decoder = ResNetDecoder(width=16, out_channels=16, bottleneck=False)
    student = create_split_classifier(ResidualEncoder(), request.param(), decoder, RESNET).eval()
    with torch.no_grad():  # a fresh encoder gives latents that all round to zero
        student.encoder[-1].skip.weight *= 100
    student.update(force=True, update_quantiles=True)
    return student


@pytest.fixture(scope="module")
def halves(student):
    state = student.state_dict()
    edge = EdgeHalf(ResidualEncoder(), type(student.entropy_model)()).eval()
    edge.load_state_dict({name: state[name] for name in state if name.startswith(("encoder.", "entropy_model."))})
    decoder = ResNetDecoder(width=16, out_channels=16, bottleneck=False)
    server = ServerHalf(type(student.entropy_model)(), decoder, student.tail, fingerprint_of(state)).eval()
    server.load_state_dict({name: state[name] for name in state if not name.startswith("encoder.")})
    return edge, server


def test_halves_do_what_the_whole_does(student, halves):
    edge, server = halves
    x = torch.randn(3, 3, 64, 64)
    streams = edge.encode(x)
    assert streams == student.encode(x) and len(set(streams)) == 3
    assert torch.equal(server.decode(streams), student.decode(streams))
    y_hat, h_hat = server.latents(streams), server.features(streams)
    with torch.no_grad():
        assert y_hat.shape == (3, 48, 8, 8) and torch.equal(server.decoder(y_hat), h_hat)
    assert h_hat.shape == (3, 16, 8, 8) and torch.equal(server.logits(h_hat), server.decode(streams))


def test_another_size_is_sent_along(halves):
    edge, server = halves
    streams = edge.encode(torch.randn(2, 3, 40, 100))
    assert unpack(streams[0]).size == (5, 13)
    assert server.features(streams).shape == (2, 16, 5, 13)


@pytest.mark.parametrize("part", ["encoder", "entropy_model"])
def test_streams_of_another_model_are_refused(student, halves, part):
    _, server = halves
    other = EdgeHalf(ResidualEncoder(), type(student.entropy_model)()).eval()
    other.load_state_dict(EdgeHalf(student.encoder, student.entropy_model).state_dict())
    with torch.no_grad():
        next(getattr(other, part).parameters())[0] += 1e-6
    with pytest.raises(BitstreamError, match="another encoder or entropy model"):
        server.decode(other.encode(torch.randn(1, 3, 64, 64)))


def test_fingerprint_counts_tables_and_nothing_of_the_server(student):
    state = student.state_dict()
    mark = fingerprint_of(state)
    assert mark == student.fingerprint() and len(mark) == 4
    for name in state:
        changed = {**state, name: state[name] + 1}
        assert (fingerprint_of(changed) == mark) == name.startswith(("decoder.", "tail."))


@pytest.mark.parametrize("prior", PRIORS)
def test_using_a_model_does_not_change_its_fingerprint(prior):
    torch.manual_seed(0)
    edge = EdgeHalf(nn.Identity(), getattr(entropy, prior)(8))
    before = fingerprint_of(edge.state_dict())
    edge.entropy_model(torch.randn(1, 8, 8, 8))
    assert fingerprint_of(edge.state_dict()) == before


def test_images_of_two_sizes_are_no_batch(halves):
    edge, server = halves
    streams = edge.encode(torch.randn(1, 3, 64, 64)) + edge.encode(torch.randn(1, 3, 64, 72))
    with pytest.raises(ValueError, match="one size"):
        server.decode(streams)


def test_latents_too_large_for_a_stream_are_not_sent(halves):
    edge, _ = halves
    edge_on_latents = EdgeHalf(torch.nn.Identity(), edge.entropy_model)
    with pytest.raises(BitstreamError, match="is too large"):
        edge_on_latents.encode(torch.zeros(1, 48, 128, 132))


def test_a_size_that_the_server_does_not_take_is_named():
    decoder = SwinDecoder(width=16, out_channels=64, feature_size=8, window_size=4, num_heads=(2, 4))
    student = create_split_classifier(ResidualEncoder(), FactorizedPrior(), decoder, SWIN).eval()
    student.update()
    with pytest.raises(BitstreamError, match=r"does not take \("):
        student.decode(student.encode(torch.zeros(1, 3, 96, 96)))


def refused_or_decoded(server: ServerHalf, packed: bytes) -> bool:
    """Return whether the bytes were decoded, and then to finite logits."""
    try:
        logits = server.decode([packed])
    except BitstreamError:
        return False
    assert logits.shape == (1, 10) and torch.isfinite(logits).all()
    return True


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_damaged_streams_are_refused(halves, data):
    edge, server = halves
    packed = bytearray(edge.encode(torch.ones(1, 3, 64, 64))[0])
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    assert not refused_or_decoded(server, bytes(packed))


@given(payload=st.binary(max_size=80), height=st.integers(0, 40), width=st.integers(0, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_hostile_streams_with_a_right_checksum_and_fingerprint_are_harmless(halves, payload, height, width):
    _, server = halves
    body = b"F2" + server.fingerprint + bytes([0, height, width]) + payload
    refused_or_decoded(server, body + zlib.crc32(body).to_bytes(4, "little"))


@given(payload=st.binary(min_size=1, max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_payloads_of_a_stranger_are_harmless(halves, payload):
    _, server = halves
    refused_or_decoded(server, pack(Stream(server.fingerprint, (8, 8), payload)))
