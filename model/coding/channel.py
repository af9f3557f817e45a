"""The two ends of the channel: tensors of integers to one string of bytes per image, and back.

All symbols of an image share one ANS stack, so its overhead, at most three bytes, is paid once.

Sender and receiver make the same calls of `code` in the same order. The sender stores the symbols and pushes the calls
in reverse at the end, since a stack returns first what was pushed last.

A call with a parity codes only the positions (i, j) with (i + j) % 2 == parity; what it returns elsewhere is undefined.
"""

from typing import NamedTuple

import numpy as np
import torch
from compressai.entropy_models import EntropyModel
from torch import Tensor

from model.coding.ans import LARGEST_SYMBOL, SymbolStack, Tables
from model.coding.bitstream import BitstreamError


class Sender:
    """Encode the symbols of a batch of images.

    Args:
        images: the batch size.

    Attributes:
        calls: tables, symbols and indexes, int32 (images, N), of each call of `code` so far.
    """

    def __init__(self, images: int):
        self.calls: list[tuple[Tables, np.ndarray, np.ndarray]] = []
        self._images = images

    def code(self, values: Tensor, indexes: Tensor, tables: Tables, parity: int | None = None) -> Tensor:
        """Send the nearest integers, clamped to +-8,192.

        Args:
            values: numbers to round (half to even), (B, C, H, W).
            indexes: the table of each value, of the same shape.
            tables: what the indexes refer to.
            parity: of the positions to send, 0 or 1; None sends all.

        Returns:
            The integers as the receiver will have them, of the values' shape, dtype and device.
        """
        symbols = to_symbols(values)
        self.calls.append((tables, numbers(symbols, parity), numbers(indexes, parity)))
        return symbols

    def strings(self) -> list[bytes]:
        """Return the string of each image."""
        return [self._string(image) for image in range(self._images)]

    def _string(self, image: int) -> bytes:
        stack = SymbolStack()
        for tables, symbols, indexes in reversed(self.calls):
            stack.push(tables, symbols[image], indexes[image])
        return stack.to_bytes()


class Receiver:
    """Decode the symbols of a batch of images.

    Args:
        strings: one per image, from `Sender.strings`.
        device: of the symbols to return.

    Raises:
        BitstreamError: a string that no sender makes.
    """

    def __init__(self, strings: list[bytes], device: torch.device):
        self._stacks = [SymbolStack(string) for string in strings]
        self._device = device

    def code(self, values: None, indexes: Tensor, tables: Tables, parity: int | None = None) -> Tensor:
        """Return the integers that the sender's call returned, as float64.

        Raises:
            BitstreamError: a symbol that no sender sends.
        """
        rows = zip(self._stacks, numbers(indexes, parity), strict=True)
        symbols = np.stack([stack.pop(tables, row) for stack, row in rows])
        return placed(torch.from_numpy(symbols).to(self._device, torch.float64), indexes.shape, parity)

    def finish(self) -> None:
        """Check that all bytes have been decoded.

        Raises:
            BitstreamError: some are left, so the decoded symbols are not those that were sent.
        """
        if not all(stack.is_empty() for stack in self._stacks):
            raise BitstreamError("the symbols end before the bytes do")


class Call(NamedTuple):
    """A call of `code`: its numbers before rounding and table indexes, (B, C, H, W), tables, and the parity sent."""

    values: Tensor
    indexes: Tensor
    tables: Tables
    parity: int | None

    @property
    def symbols(self) -> Tensor:
        """What is sent."""
        return to_symbols(self.values)


class Recorder:
    """A sender that codes nothing: it keeps its calls as tensors, so that their computation can be exported as a graph.

    Attributes:
        calls: in the order in which the receiver decodes them.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def code(self, values: Tensor, indexes: Tensor, tables: Tables, parity: int | None = None) -> Tensor:
        """Record what `Sender.code` sends, and return what it returns."""
        call = Call(values, indexes, tables, parity)
        self.calls.append(call)
        return call.symbols


def to_symbols(values: Tensor) -> Tensor:
    """Return the nearest integers (half to even), clamped to +-8,192."""
    return values.round().clamp(-LARGEST_SYMBOL, LARGEST_SYMBOL)


def checkerboard(like: Tensor, parity: int) -> Tensor:
    """Return the positions (i, j) of a tensor (..., H, W) with (i + j) % 2 == parity, bool (H, W)."""
    height, width = like.shape[-2:]
    rows, columns = (torch.arange(side, device=like.device) for side in (height, width))
    return (rows[:, None] + columns) % 2 == parity


def numbers(tensor: Tensor, parity: int | None) -> np.ndarray:
    """Return the integers that a call codes of a tensor (B, C, H, W), in the order of coding, int32 (B, N)."""
    coded = tensor if parity is None else tensor[..., checkerboard(tensor, parity)]
    return coded.flatten(1).to("cpu", torch.int32).numpy()


def placed(coded: Tensor, shape: torch.Size, parity: int | None) -> Tensor:
    """Return coded symbols (B, N) in their positions of a tensor of `shape`; those of the other parity are 0."""
    if parity is None:
        return coded.reshape(shape)
    everywhere = coded.new_zeros(shape)
    half = checkerboard(everywhere, parity)
    everywhere[..., half] = coded.reshape(everywhere[..., half].shape)
    return everywhere


def tables_of(model: EntropyModel) -> Tables:
    """Return the tables of a CompressAI entropy model.

    Raises:
        ValueError: it has none before its `update()`.
    """
    cdf, lengths, offsets = (t.cpu().numpy() for t in (model.quantized_cdf, model.cdf_length, model.offset))
    return Tables(cdf, lengths, offsets, per_channel=len(cdf) == getattr(model, "channels", None))
