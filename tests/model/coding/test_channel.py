import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from hypothesis import given, settings
from hypothesis import strategies as st

from model.coding.ans import LARGEST_SYMBOL, Tables
from model.coding.bitstream import BitstreamError
from model.coding.channel import Receiver, Sender, tables_of

SCALES = [0.11, 0.5, 2.0, 30.0]
CPU = torch.device("cpu")


def gaussian_tables() -> Tables:
    model = GaussianConditional(SCALES)
    model.update()
    return tables_of(model)


TABLES = gaussian_tables()
calls = st.lists(
    st.lists(
        st.tuples(st.integers(-40, 40) | st.integers(-LARGEST_SYMBOL, LARGEST_SYMBOL), st.integers(0, len(SCALES) - 1)),
        min_size=1,
        max_size=30,
    ),
    max_size=4,
)


def tensors(call: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    symbols, indexes = zip(*call, strict=True)
    return torch.tensor([symbols], dtype=torch.float64), torch.tensor([indexes])


@given(calls)
@settings(deadline=None)
def test_any_symbols_of_any_calls_come_back(calls):
    sender = Sender(1)
    for symbols, indexes in map(tensors, calls):
        sender.code(symbols, indexes, TABLES)
    receiver = Receiver(sender.strings(), CPU)
    for symbols, indexes in map(tensors, calls):
        assert torch.equal(receiver.code(None, indexes, TABLES), symbols)
    receiver.finish()


@given(st.binary(max_size=80), st.lists(st.integers(0, len(SCALES) - 1), min_size=1, max_size=50))
@settings(deadline=None)
def test_any_bytes_give_symbols_that_are_bounded_or_an_error(string, indexes):
    try:
        receiver = Receiver([string], CPU)
        symbols = receiver.code(None, torch.tensor([indexes]), TABLES)
        receiver.finish()
    except BitstreamError:
        return
    assert symbols.shape == (1, len(indexes)) and symbols.abs().max() <= LARGEST_SYMBOL


def test_images_of_a_batch_have_strings_of_their_own():
    symbols, indexes = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.zeros(3, 2, 4, 4)
    batch, alone = Sender(3), Sender(1)
    assert torch.equal(batch.code(symbols, indexes, TABLES), symbols.round())
    alone.code(symbols[1:2], indexes[1:2], TABLES)
    assert batch.strings()[1:2] == alone.strings()


def test_size_is_the_information_and_at_most_four_bytes():
    generator = np.random.default_rng(0)
    indexes = generator.integers(0, len(SCALES), 4000)
    symbols = np.round(generator.normal(size=4000) * np.array(SCALES)[indexes])
    model = GaussianConditional(SCALES)
    likelihood = model._likelihood(torch.tensor(symbols), torch.tensor(SCALES, dtype=torch.float64)[indexes])
    sender = Sender(1)
    sender.code(torch.tensor(symbols)[None], torch.tensor(indexes)[None], TABLES)
    excess = len(sender.strings()[0]) - float(-torch.log2(likelihood).sum()) / 8
    assert -1 < excess < 4 + 0.002 * 4000 / 8


def test_symbols_saturate():
    sender = Sender(1)
    sent = sender.code(torch.tensor([[1e9, -1e9]]), torch.zeros(1, 2), TABLES)
    assert sent.tolist() == [[LARGEST_SYMBOL, -LARGEST_SYMBOL]]


@pytest.mark.parametrize("place", range(12))
def test_bytes_that_are_left_over_are_noticed(place):
    symbols, indexes = torch.randint(-3, 4, (1, 64)).double(), torch.full((1, 64), 2)
    sender = Sender(1)
    sender.code(symbols, indexes, TABLES)
    (string,) = sender.strings()
    receiver = Receiver([string[:place] + b"\x55\x66\x77\x88" + string[place:]], CPU)
    with pytest.raises(BitstreamError, match="end before the bytes do"):
        receiver.code(None, indexes, TABLES)
        receiver.finish()


def test_a_last_zero_byte_is_refused():
    with pytest.raises(BitstreamError, match="zero byte"):
        Receiver([b"abc\0"], CPU)


def test_tables_are_needed():
    with pytest.raises(ValueError, match=r"update\(\)"):
        tables_of(EntropyBottleneck(3))
