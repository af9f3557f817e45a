"""Check an exported encoder against the model that it was made from."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from misc.deploy.edge_client import EdgeEncoder
from misc.deploy.sample_images import Samples, loaded
from misc.errors import UserError
from misc.progress import progress_bar
from model.coding.channel import checkerboard, numbers
from model.halves import EdgeHalf, ServerHalf

TIE = 1e-3
RATES = (0.5, 0.0, 1.0, 0.31, 0.77)


class Checked(NamedTuple):
    """How many images were encoded by the model and by the client, and in how many a tie was rounded apart."""

    images: int
    ties: int

    def text(self, name: str) -> str:
        """Return one line about images of this name."""
        if not self.ties:
            return f"{self.images:,} {name}: all streams equal those of scripts/encode.py"
        return (
            f"{self.images:,} {name}: {self.images - self.ties:,} streams equal those of scripts/encode.py; "
            f"in {self.ties:,}, a number is a tie that PyTorch and ONNX Runtime round apart, and both decode"
        )


def check_streams(
    edge: EdgeHalf, transform: Callable[[Image], Tensor], client: EdgeEncoder, samples: Samples
) -> Checked:
    """Encode images by the model and by the client; with variable rate, at five rates in turn.

    The two sum the products of a convolution in different orders, so a number that lies within their rounding errors of
    a half may become one integer here and the next one there. Both streams are valid.

    Raises:
        UserError: two streams differ for another reason; the message names the image and the first byte.
    """
    ties = 0
    rates: Sequence[float | None] = (None,) if client.last_level is None else RATES
    for number, image in enumerate(progress_bar(samples.images, "checking streams")):
        x, rate = transform(loaded(image))[None], rates[number % len(rates)]
        (expected,), got = edge.encode(x, client.level_of(rate)), client.encode(image, rate)
        if got == expected:
            continue
        if not _is_tie(edge, client, x, client.level_of(rate)):
            byte = next((at for at, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]), None)
            where = f"from byte {byte} on" if byte is not None else "in length"
            name = str(image) if isinstance(image, Path) else f"number {number}"
            raise UserError(f"the exported encoder is not the model: of {samples.name}, {name} differs {where}")
        ties += 1
    return Checked(len(samples.images), ties)


@torch.no_grad()
def _is_tie(edge: EdgeHalf, client: EdgeEncoder, x: Tensor, level: int | None) -> bool:
    """Tell whether the first symbols that differ, in the order of decoding, are all near a tie in the model.

    What is decoded after them depends on them, and may differ in any way.
    """
    levels = None if level is None else torch.tensor([level])
    calls = edge.entropy_model.recorder()(edge.encoder(x), levels)
    for call, (_, symbols, _) in zip(calls, client.symbols(x[0].numpy(), level)[1], strict=True):
        differing = numbers(call.symbols, call.parity)[0] != symbols
        if differing.any():
            values = call.values if call.parity is None else call.values[..., checkerboard(call.values, call.parity)]
            distance = values.flatten().double().numpy()[differing] - symbols[differing]
            return bool(np.abs(distance).max() < 0.5 + TIE)
    return False


class Comparison(NamedTuple):
    """A quantised encoder beside the float one, over some images.

    Attributes:
        changed: share of the symbols that differ, and by how much at most.
        sent: mean bytes of a stream, float and quantised.
        top1: in percent, float and quantised; None without labels.
    """

    changed: tuple[float, int]
    sent: tuple[float, float]
    top1: tuple[float, float] | None

    def text(self) -> str:
        """Return one line."""
        share, most = self.changed
        line = (
            f"{share:.2%} of the symbols differ from float32's, by at most {most}; "
            f"{self.sent[1]:.1f} bytes per image instead of {self.sent[0]:.1f}"
        )
        return line + (f"; top-1 {self.top1[1]:.2f} % instead of {self.top1[0]:.2f} %" if self.top1 else "")


def compare(floating: EdgeEncoder, quantised: EdgeEncoder, samples: Samples, server: ServerHalf | None) -> Comparison:
    """Encode images by both encoders and, where there are labels and a server, classify them."""
    changed, most, total = 0, 0, 0
    streams: tuple[list[bytes], list[bytes]] = ([], [])
    for image in progress_bar(samples.images, "comparing with float32"):
        x = floating.transform(image)
        coded = [client.symbols(x) for client in (floating, quantised)]
        symbols = [np.concatenate([part[1] for part in parts]) for _, parts in coded]
        distance = np.abs(symbols[0] - symbols[1])
        changed, most, total = (
            changed + int((distance > 0).sum()),
            max(most, int(distance.max())),
            total + len(distance),
        )
        for client, found, (size, parts) in zip((floating, quantised), streams, coded, strict=True):
            found.append(client.pack(size, parts, client.level_of(None)))
    sent = tuple(sum(map(len, found)) / len(found) for found in streams)
    top1 = None
    if server is not None and samples.labels is not None:
        top1 = tuple(_top1(server, found, samples.labels) for found in streams)
    return Comparison((changed / total, most), sent, top1)


def _top1(server: ServerHalf, streams: Iterable[bytes], labels: Iterable[int]) -> float:
    found = [int(server.decode([stream]).argmax()) for stream in progress_bar(streams, "classifying")]
    return 100 * float((torch.tensor(found) == torch.tensor(list(labels))).float().mean())
