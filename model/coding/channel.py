"""The two ends of the channel: tensors of integers to one string of bytes per image, and back.

All symbols of an image share one ANS stack, so its overhead, at most three bytes, is paid once.

Sender and receiver make the same calls of `code` in the same order. The sender stores the symbols and pushes the calls
in reverse at the end, since a stack returns first what was pushed last.
"""

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

    def code(self, values: Tensor, indexes: Tensor, tables: Tables) -> Tensor:
        """Send the nearest integers, clamped to +-8,192.

        Args:
            values: numbers to round (half to even), of any shape (B, ...).
            indexes: the table of each value, of the same shape.
            tables: what the indexes refer to.

        Returns:
            The integers as the receiver will have them, of the values' shape, dtype and device.
        """
        symbols = values.round().clamp(-LARGEST_SYMBOL, LARGEST_SYMBOL)
        self.calls.append((tables, _numbers(symbols), _numbers(indexes)))
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

    def code(self, values: None, indexes: Tensor, tables: Tables) -> Tensor:
        """Return the integers that the sender's call returned, as float64.

        Raises:
            BitstreamError: a symbol that no sender sends.
        """
        rows = zip(self._stacks, _numbers(indexes), strict=True)
        symbols = np.stack([stack.pop(tables, row) for stack, row in rows])
        return torch.from_numpy(symbols).to(self._device, torch.float64).reshape(indexes.shape)

    def finish(self) -> None:
        """Check that all bytes have been decoded.

        Raises:
            BitstreamError: some are left, so the decoded symbols are not those that were sent.
        """
        if not all(stack.is_empty() for stack in self._stacks):
            raise BitstreamError("the symbols end before the bytes do")


def tables_of(model: EntropyModel) -> Tables:
    """Return the tables of a CompressAI entropy model.

    Raises:
        ValueError: it has none before its `update()`.
    """
    cdf, lengths, offsets = (t.cpu().numpy() for t in (model.quantized_cdf, model.cdf_length, model.offset))
    return Tables(cdf, lengths, offsets)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.flatten(1).to("cpu", torch.int32).numpy()
