"""The entropy coder: symbols to bytes and back, through constriction's ANS coder and CompressAI's integer tables.

ANS: Duda et al., PCS 2015; the coder: constriction (Rust), whose decoder is memory-safe and gives a symbol for any
bytes. One stack of bytes takes all of an image's symbols, so that its three bytes of overhead are paid once.

Sender and receiver go through the same calls of `carry` in the same order. The sender keeps what it is given, and
pushes all of it backwards at the end: what is pushed last is popped first.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.coding.ans import LARGEST_SYMBOL, Tables, _AnsCoder, _pop, _push
from model.coding.bitstream import BitstreamError


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
