"""The entropy coder: symbols to bytes and back, through constriction's ANS coder and CompressAI's integer tables.

ANS: Duda et al., PCS 2015; the coder: constriction (Rust), whose decoder is memory-safe and gives a symbol for any
bytes. One stack of bytes takes all of an image's symbols, so that its three bytes of overhead are paid once.

Sender and receiver go through the same calls of `carry` in the same order. The sender keeps what it is given, and
pushes all of it backwards at the end: what is pushed last is popped first.
"""

from collections.abc import Callable, Iterator

import constriction
import numpy as np
import torch
from compressai.entropy_models import EntropyModel as TableModel
from torch import Tensor

from misc.bitstream import BitstreamError

LARGEST_SYMBOL = 2**13
_AnsCoder = constriction.stream.stack.AnsCoder
_EXCESS_BITS = 24  # constriction's largest uniform distribution has 2^24 values


class Tables:
    """The densities of a CompressAI entropy model as tables for the coder.

    Every table ends with an escape: a symbol outside of a table is sent as the escape and, behind all others of its
    call, its distance to the table.

    Args:
        model: with tables, i.e. after `update()`.

    Raises:
        ValueError: no tables.
    """

    def __init__(self, model: TableModel):
        if model.quantized_cdf.numel() == 0:
            raise ValueError("the coder has no tables yet: call update() first")
        lengths = model.cdf_length.cpu().numpy() - 1
        self.first = model.offset.cpu().numpy().astype(np.int32)
        self.escape = lengths.astype(np.int32) - 1
        # The frequencies are integers, and so are all sums of them: float64 holds both without error.
        frequencies = np.diff(model.quantized_cdf.cpu().numpy().astype(np.float64))
        self.models = [
            constriction.stream.model.Categorical(row[:length], perfect=False)
            for row, length in zip(frequencies, lengths, strict=True)
        ]

    def runs(self, indexes: np.ndarray) -> Iterator[tuple[constriction.stream.model.Categorical, slice]]:
        """Yields the table of every run of equal indexes, and where it is; the indexes must be sorted."""
        starts = np.flatnonzero(np.diff(indexes, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(indexes)], strict=True):
            yield self.models[indexes[start]], slice(start, stop)


class Sender:
    """Makes one string of bytes per image of a batch.

    Args:
        images: their number.
    """

    def __init__(self, images: int):
        self._images = images
        self._calls: list[tuple[Tables, np.ndarray, np.ndarray]] = []

    def carry(self, values: Callable[[], Tensor], indexes: Tensor, tables: Tables) -> Tensor:
        """Sends the nearest integers, at most 8,192 in magnitude.

        Args:
            values: gives numbers to round (half to even), of any shape (B, ...); called by the sender only.
            indexes: of the table of each, of the same shape.
            tables: where the indexes point.

        Returns:
            The integers as the receiver will have them, of the values' shape, dtype and device.
        """
        symbols = values().round().clamp(-LARGEST_SYMBOL, LARGEST_SYMBOL)
        self._calls.append((tables, _numbers(symbols), _numbers(indexes)))
        return symbols

    def strings(self) -> list[bytes]:
        """Returns the string of every image."""
        return [self._string(image) for image in range(self._images)]

    def _string(self, image: int) -> bytes:
        stack = _AnsCoder()
        for tables, symbols, indexes in reversed(self._calls):
            _push(stack, tables, symbols[image], indexes[image])
        # The last word is the most significant one: its zero bytes need not travel.
        return stack.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Receiver:
    """Reads what a `Sender` made, of the images of a batch.

    Args:
        strings: one per image.
        device: where the symbols are wanted.

    Raises:
        BitstreamError: a string that no sender makes.
    """

    def __init__(self, strings: list[bytes], device: torch.device):
        if any(string.endswith(b"\0") for string in strings):
            raise BitstreamError("the symbols end with a zero byte: no sender does that")
        words = (np.frombuffer(string + bytes(-len(string) % 4), "<u4") for string in strings)
        self._stacks = [_AnsCoder(array.astype(np.uint32)) for array in words]
        self._device = device

    def carry(self, values: Callable[[], Tensor], indexes: Tensor, tables: Tables) -> Tensor:
        """Returns the integers that the sender's call returned, as float64; `values` is not called.

        Raises:
            BitstreamError: a symbol that no sender sends.
        """
        rows = zip(self._stacks, _numbers(indexes), strict=True)
        symbols = np.stack([_pop(stack, tables, row) for stack, row in rows])
        return torch.from_numpy(symbols).to(self._device, torch.float64).reshape(indexes.shape)

    def finish(self) -> None:
        """Checks that nothing is left.

        Raises:
            BitstreamError: bytes are left, so what was read is not what was sent.
        """
        if not all(stack.is_empty() for stack in self._stacks):
            raise BitstreamError("the symbols end before the bytes do")


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.flatten(1).to("cpu", torch.int32).numpy()


def _push(stack: _AnsCoder, tables: Tables, symbols: np.ndarray, indexes: np.ndarray) -> None:
    order = np.argsort(indexes, kind="stable")
    symbols, indexes = symbols[order], indexes[order]
    rows = symbols - tables.first[indexes]
    escape = tables.escape[indexes]
    outside = (rows < 0) | (rows >= escape)
    for row, last in zip(rows[outside][::-1].tolist(), escape[outside][::-1].tolist(), strict=True):
        _push_excess(stack, -2 * row if row < 0 else 2 * (row - last) + 1)
    rows = np.where(outside, escape, rows)
    for model, run in reversed(list(tables.runs(indexes))):
        stack.encode_reverse(rows[run], model)


def _pop(stack: _AnsCoder, tables: Tables, indexes: np.ndarray) -> np.ndarray:
    order = np.argsort(indexes, kind="stable")
    indexes = indexes[order]
    rows = np.concatenate([stack.decode(model, run.stop - run.start) for model, run in tables.runs(indexes)])
    escape = tables.escape[indexes]
    for place in np.flatnonzero(rows == escape):
        excess = _pop_excess(stack)
        rows[place] = escape[place] + excess // 2 if excess % 2 else -(excess // 2)
    symbols = np.empty_like(rows)
    symbols[order] = rows + tables.first[indexes]
    if np.abs(symbols).max() > LARGEST_SYMBOL:
        raise BitstreamError(f"a symbol beyond {LARGEST_SYMBOL}: no sender sends it")
    return symbols


def _push_excess(stack: _AnsCoder, excess: int) -> None:
    """Elias' gamma code of a number from 1 on: how many bits follow its first, and those bits."""
    bits = excess.bit_length() - 1
    if bits:
        stack.encode_reverse(excess - (1 << bits), constriction.stream.model.Uniform(1 << bits))
    stack.encode_reverse(bits, constriction.stream.model.Uniform(_EXCESS_BITS))


def _pop_excess(stack: _AnsCoder) -> int:
    bits = stack.decode(constriction.stream.model.Uniform(_EXCESS_BITS))
    return (1 << bits) + (stack.decode(constriction.stream.model.Uniform(1 << bits)) if bits else 0)
