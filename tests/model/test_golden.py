"""Streams of the format's present version, kept: a change that breaks the files of users is seen here."""

import json

import pytest
import torch
from safetensors.torch import load_file

from model.coding.bitstream import unpack
from tests.golden.make_golden import FOLDER, LEVEL, PRIORS, VARIABLE_RATE, digest, edge_of, encode, y_hat_of

DIGESTS = json.loads((FOLDER / "digests.json").read_text())


@pytest.fixture(params=PRIORS)
def prior(request) -> str:
    return request.param


@pytest.fixture
def golden(prior):
    tensors = load_file(FOLDER / f"{prior}.safetensors")
    edge = edge_of(prior)
    edge.load_state_dict({name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")})
    return edge, tensors["y"], (FOLDER / f"{prior}.fsb").read_bytes()


def test_stream_decodes_to_the_latent_it_always_did(golden, prior):
    edge, y, packed = golden
    stream = unpack(packed)
    y_hat = y_hat_of(edge, stream)
    assert stream.fingerprint == edge.fingerprint() and stream.size == (7, 10)
    assert digest(y_hat) == DIGESTS[prior]
    step = (
        1.0
        if edge.entropy_model.gains is None
        else float(edge.entropy_model.gains(torch.tensor([LEVEL])).inverse.detach().max())
    )
    assert (y_hat - y).abs().max() <= 0.5 * step + 1e-3


def test_latent_is_encoded_to_the_bytes_it_always_was(golden):
    edge, y, packed = golden
    assert encode(edge, y) == packed


def test_version_of_the_format(golden, prior):
    _, _, packed = golden
    assert (packed[:2], unpack(packed).level) == ((b"F3", LEVEL) if prior in VARIABLE_RATE else (b"F2", None))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_stream_is_the_same_on_cuda(golden, prior):
    edge, y, packed = golden
    edge.cuda()
    assert encode(edge, y.cuda()) == packed
    assert digest(y_hat_of(edge, unpack(packed)).cpu()) == DIGESTS[prior]
