"""Check an exported encoder against the model that it was made from."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from misc.deploy.edge_client import EdgeEncoder
from misc.deploy.sample_images import Samples, loaded
from misc.errors import UserError
from misc.progress import progress_bar
from model.halves import EdgeHalf, ServerHalf


def check_equal_bytes(
    edge: EdgeHalf, transform: Callable[[Image], Tensor], client: EdgeEncoder, samples: Samples
) -> None:
    """Encode images by the model and by the client.

    Raises:
        UserError: two streams differ; the message names the image and the first byte.
    """
    for number, image in enumerate(progress_bar(samples.images, "checking streams")):
        (expected,) = edge.encode(transform(loaded(image))[None])
        got = client.encode(image)
        if got != expected:
            pairs = zip(expected, got, strict=False)
            byte = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(got)))
            name = image if isinstance(image, str) else getattr(image, "name", f"number {number}")
            raise UserError(
                f"the exported encoder is not the model: of {samples.name}, {name} differs from byte {byte} on"
            )


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
        symbols = [np.concatenate([part[1] for part in client.symbols(x)[1]]) for client in (floating, quantised)]
        distance = np.abs(symbols[0] - symbols[1])
        changed, most, total = (
            changed + int((distance > 0).sum()),
            max(most, int(distance.max())),
            total + len(distance),
        )
        for client, found in zip((floating, quantised), streams, strict=True):
            found.append(client.encode_tensor(x))
    sent = tuple(sum(map(len, found)) / len(found) for found in streams)
    top1 = None
    if server is not None and samples.labels is not None:
        top1 = tuple(_top1(server, found, samples.labels) for found in streams)
    return Comparison((changed / total, most), sent, top1)


def _top1(server: ServerHalf, streams: Iterable[bytes], labels: Iterable[int]) -> float:
    found = [int(server.decode([stream]).argmax()) for stream in progress_bar(streams, "classifying")]
    return 100 * float((torch.tensor(found) == torch.tensor(list(labels))).float().mean())
