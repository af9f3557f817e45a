import weakref

import numpy as np
import pytest
import torch

from misc.deploy.server.decoding import StreamDecoder, Wanted
from model.coding.bitstream import BitstreamError, Stream, pack

ONE, OTHER = b"\1\1\1\1", b"\2\2\2\2"


def stream(payload: bytes, size=(4, 4), fingerprint=ONE) -> bytes:
    return pack(Stream(fingerprint, size, payload))


class Half:
    """A stub of a server half: the logits of a stream are its last bytes before the checksum."""

    entropy_model = type("EntropyModel", (), {"max_positions": 64})()

    def __init__(self, *errors):
        self.errors = dict(errors)
        self.calls = []

    def decode(self, streams):
        self.calls.append(len(streams))
        payloads = [packed[-6:-4] for packed in streams]
        for payload in payloads:
            if payload in self.errors:
                raise self.errors[payload]
        return torch.tensor([list(payload) for payload in payloads], dtype=torch.float32)

    def features(self, streams):
        return self.decode(streams)[:, :, None, None]


def decoded(half, streams, kind="classes"):
    decoder = StreamDecoder({ONE.hex(): half, OTHER.hex(): half})
    return decoder.decode([Wanted(packed, kind) for packed in streams])


def test_probabilities_come_back_in_order():
    results = decoded(Half(), [stream(bytes([0, n])) for n in range(5)])
    for n, result in enumerate(results):
        assert result.dtype == np.float32 and np.allclose(result, torch.tensor([0.0, n]).softmax(0))


def test_features_come_back_as_they_are():
    (result,) = decoded(Half(), [stream(b"\3\4")], "features")
    assert result.tolist() == [[[3]], [[4]]]


def test_streams_of_one_model_and_size_are_decoded_at_once():
    half = Half()
    streams = [stream(b"\0\1"), stream(b"\0\2", (4, 5)), stream(b"\0\3"), stream(b"\0\4", fingerprint=OTHER)]
    results = decoded(half, streams)
    assert sorted(half.calls) == [1, 1, 2]
    assert [round(float(np.log(p[1] / p[0]))) for p in results] == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", range(8))
def test_a_bad_stream_fails_alone(bad):
    half = Half((b"\0!", BitstreamError("cut")))
    streams = [stream(b"\0!" if n == bad else b"\0\1") for n in range(8)]
    results = decoded(half, streams)
    assert [n for n, result in enumerate(results) if isinstance(result, BitstreamError)] == [bad]
    assert all(len(result) == 2 for n, result in enumerate(results) if n != bad)
    assert len(half.calls) == 7  # 8; 4 and 4; 2 and 2; 1 and 1


def test_an_unexpected_error_is_logged_and_stays_alone(caplog):
    results = decoded(Half((b"\0!", RuntimeError("a bug"))), [stream(b"\0\1"), stream(b"\0!"), stream(b"\0\1")])
    assert [type(result) for result in results] == [np.ndarray, RuntimeError, np.ndarray]
    assert caplog.text.count("a bug") == 1


def test_a_failed_batch_is_let_go_before_its_halves_are_tried(monkeypatch):
    class Tensor:
        pass

    half, held = Half(), []

    def decode(streams):
        assert not any(tensor() for tensor in held), "what failed is still in memory"
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise BitstreamError("cut")

    monkeypatch.setattr(half, "decode", decode)
    results = decoded(half, [stream(b"\0\1")] * 4)
    assert len(held) == 7 and [type(result) for result in results] == [BitstreamError] * 4


def test_the_cost_of_a_stream_is_its_share_of_the_largest_latent():
    decoder = StreamDecoder({ONE.hex(): Half()})
    assert [decoder.cost(stream(b"", size)) for size in ((4, 4), (2, 32), (128, 128))] == [0.25, 1, 1]
    with pytest.raises(BitstreamError, match="not served"):
        decoder.cost(stream(b"", fingerprint=OTHER))


def test_what_is_no_stream_or_another_models_is_refused():
    good = stream(b"\0\1")
    results = decoded(Half(), [good[:-1], good, stream(b"\0\1", fingerprint=b"\3\3\3\3")])
    assert "truncated or damaged" in str(results[0]) and "model 03030303, which is not served" in str(results[2])
    assert isinstance(results[1], np.ndarray)


def test_numbers_that_are_not_finite_are_refused(monkeypatch):
    half = Half()
    monkeypatch.setattr(half, "features", lambda streams: torch.full((len(streams), 1, 1, 1), float("inf")))
    (result,) = decoded(half, [stream(b"\0\1")], "features")
    assert isinstance(result, BitstreamError) and "not finite" in str(result)


def test_large_latents_are_decoded_a_few_at_a_time():
    half = Half()
    decoded(half, [stream(b"\0\1", (128, 128)) for _ in range(5)])
    assert half.calls == [2, 2, 1]
