"""Asymmetric numeral systems (ANS): integer symbols to bytes and back, with NumPy and constriction alone.

ANS: Duda et al., PCS 2015. The coder is constriction's (Rust): its decoder is memory-safe and yields a symbol for any
bytes.
"""

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np

from model.coding.bitstream import BitstreamError

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform

LARGEST_SYMBOL = 2**13
EXCESS_BITS = 24  # constriction's largest uniform distribution has 2^24 values


class Tables:
    """Frequency tables of integer symbols.

    The last entry of every table is an escape: a symbol outside the table is coded as the escape, and its distance to
    the table follows after all other symbols of the same call.

    Args:
        cdf: cumulative frequencies from 0 on, integers (tables, longest).
        lengths: number of values of `cdf` that each table uses, (tables,).
        offsets: the smallest symbol of each table, (tables,).
        per_channel: whether table k is that of channel k, wherever in the latent a symbol is.

    Attributes:
        cdf: cumulative frequencies of each table, int32 (length,).

    Raises:
        ValueError: there are no tables.
    """

    def __init__(self, cdf: np.ndarray, lengths: np.ndarray, offsets: np.ndarray, per_channel: bool = False):
        if cdf.size == 0:
            raise ValueError("the coder has no tables yet: call update() first")
        self.cdf = [row[:length].astype(np.int32) for row, length in zip(cdf, lengths, strict=True)]
        self.per_channel = per_channel
        self.first = offsets.astype(np.int32)
        self.escape = lengths.astype(np.int32) - 2
        # The frequencies and all of their sums are integers, which float64 represents exactly.
        self.models = [Categorical(np.diff(row.astype(np.float64)), perfect=False) for row in self.cdf]

    def runs(self, indexes: np.ndarray) -> Iterator[tuple[Any, slice]]:
        """Yield the table and the slice of every run of equal indexes; the indexes must be sorted."""
        starts = np.flatnonzero(np.diff(indexes, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(indexes)], strict=True):
            yield self.models[indexes[start]], slice(start, stop)


class SymbolStack:
    """A stack of coded symbols: the last call of `push` is the first to `pop`.

    Args:
        string: what `to_bytes` returned; empty for an empty stack.

    Raises:
        BitstreamError: a string that `to_bytes` never returns.
    """

    def __init__(self, string: bytes = b""):
        if string.endswith(b"\0"):
            raise BitstreamError("the symbols end with a zero byte: no sender does that")
        words = np.frombuffer(string + bytes(-len(string) % 4), "<u4")
        self._coder = AnsCoder(words.astype(np.uint32))

    def push(self, tables: Tables, symbols: np.ndarray, indexes: np.ndarray) -> None:
        """Code symbols of at most 8,192 in magnitude.

        Args:
            tables: what the indexes refer to.
            symbols: int32 (N,).
            indexes: the table of each symbol, int32 (N,).
        """
        order = np.argsort(indexes, kind="stable")
        symbols, indexes = symbols[order], indexes[order]
        rows = symbols - tables.first[indexes]
        escape = tables.escape[indexes]
        outside = (rows < 0) | (rows >= escape)
        for row, last in zip(rows[outside][::-1].tolist(), escape[outside][::-1].tolist(), strict=True):
            self._push_excess(-2 * row if row < 0 else 2 * (row - last) + 1)
        rows = np.where(outside, escape, rows)
        for model, run in reversed(list(tables.runs(indexes))):
            self._coder.encode_reverse(rows[run], model)

    def pop(self, tables: Tables, indexes: np.ndarray) -> np.ndarray:
        """Return the symbols that the matching `push` coded, int32 (N,).

        Raises:
            BitstreamError: a symbol that no sender sends.
        """
        order = np.argsort(indexes, kind="stable")
        indexes = indexes[order]
        rows = np.concatenate([self._coder.decode(model, run.stop - run.start) for model, run in tables.runs(indexes)])
        escape = tables.escape[indexes]
        for place in np.flatnonzero(rows == escape):
            excess = self._pop_excess()
            rows[place] = escape[place] + excess // 2 if excess % 2 else -(excess // 2)
        symbols = np.empty_like(rows)
        symbols[order] = rows + tables.first[indexes]
        if np.abs(symbols).max() > LARGEST_SYMBOL:
            raise BitstreamError(f"a symbol beyond {LARGEST_SYMBOL}: no sender sends it")
        return symbols

    def is_empty(self) -> bool:
        """Tell whether all symbols have been popped."""
        return self._coder.is_empty()

    def to_bytes(self) -> bytes:
        """Return the coded symbols; the zero bytes at the end, the highest of the last word, are left out."""
        return self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def _push_excess(self, excess: int) -> None:
        """Code a positive integer by the Elias gamma code: the number of bits after the leading one, then those."""
        bits = excess.bit_length() - 1
        if bits:
            self._coder.encode_reverse(excess - (1 << bits), Uniform(1 << bits))
        self._coder.encode_reverse(bits, Uniform(EXCESS_BITS))

    def _pop_excess(self) -> int:
        bits = self._coder.decode(Uniform(EXCESS_BITS))
        return (1 << bits) + (self._coder.decode(Uniform(1 << bits)) if bits else 0)
