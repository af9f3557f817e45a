"""The entropy coder: symbols to bytes and back."""

from collections.abc import Iterator

import constriction
import numpy as np
from compressai.entropy_models import EntropyModel as TableModel

from model.coding.bitstream import BitstreamError

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
