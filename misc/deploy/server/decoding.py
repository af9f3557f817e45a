"""Decode a batch of streams of any models and sizes; a stream that fails does so alone."""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from model.coding.bitstream import MAX_POSITIONS, BitstreamError, unpack
from model.halves import ServerHalf

Kind = Literal["classes", "features"]
# Of the streams decoded at once: two latents of the largest size, or 41 of 28 x 28 (images of 224 x 224).
BATCH_POSITIONS = 2 * MAX_POSITIONS
log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A stream and what is wanted of it: the probabilities of the classes, or the feature h_hat."""

    stream: bytes
    kind: Kind


class Group(NamedTuple):
    """What the streams of one forward pass share."""

    fingerprint: str
    size: tuple[int, int]
    kind: Kind


class StreamDecoder:
    """Decode streams of several models.

    Args:
        halves: the server half of each model, by its fingerprint in hexadecimal.
    """

    def __init__(self, halves: Mapping[str, ServerHalf]):
        self.halves = halves

    def decode(self, batch: Sequence[Wanted]) -> list[np.ndarray | Exception]:
        """Return the result of each stream: float32 (num_classes,) or (C, H', W'), or why it has none.

        The reason is a BitstreamError if it lies in the stream.
        """
        results: dict[int, np.ndarray | Exception] = {}
        groups: dict[Group, list[int]] = defaultdict(list)
        for place, wanted in enumerate(batch):
            try:
                groups[self._group(wanted)].append(place)
            except BitstreamError as error:
                results[place] = error
        for group, members in groups.items():
            for places in _chunks(members, group.size):
                results |= zip(places, self._rows(group, [batch[place].stream for place in places]), strict=True)
        return [results[place] for place in range(len(batch))]

    def cost(self, packed: bytes) -> float:
        """Return how long a stream takes: 1 is the largest latent of its model, what is larger is refused at once.

        Raises:
            BitstreamError: not a stream of a served model.
        """
        stream = unpack(packed)
        model = self.halves[known(stream.fingerprint.hex(), self.halves)].entropy_model
        return min(1.0, math.prod(stream.size) / model.max_positions)

    def _group(self, wanted: Wanted) -> Group:
        stream = unpack(wanted.stream)
        return Group(known(stream.fingerprint.hex(), self.halves), stream.size, wanted.kind)

    def _rows(self, group: Group, streams: list[bytes]) -> list[np.ndarray | Exception]:
        """Decode streams at once; if that fails, each half of them, so that in the end the bad ones are alone.

        A stream whose symbols are damaged fails before the networks run, which makes the search cheap.
        """
        try:
            return [_finite(row) for row in self._output(group, streams)]
        except Exception as error:
            if len(streams) == 1:
                if not isinstance(error, BitstreamError):
                    log.exception("a stream of model %s, latent %s x %s", group.fingerprint, *group.size)
                return [error.with_traceback(None)]  # it would keep tensors alive
        # Not inside the `except`: there the error keeps its tensors alive, and it may be memory that is lacking.
        middle = len(streams) // 2
        return self._rows(group, streams[:middle]) + self._rows(group, streams[middle:])

    def _output(self, group: Group, streams: list[bytes]) -> np.ndarray:
        half = self.halves[group.fingerprint]
        output = half.features(streams) if group.kind == "features" else half.decode(streams).float().softmax(1)
        return output.float().cpu().numpy()


def known(fingerprint: str, served: Iterable[str]) -> str:
    """Return the fingerprint if it is that of a served model.

    Raises:
        BitstreamError: it is not.
    """
    if fingerprint not in served:
        raise BitstreamError(f"the stream is of model {fingerprint}, which is not served: {', '.join(served)} is")
    return fingerprint


def _chunks(places: list[int], size: tuple[int, int]) -> Iterator[list[int]]:
    """Yield parts of a group that are small enough to be decoded at once."""
    most = max(1, BATCH_POSITIONS // (size[0] * size[1]))
    return (places[start : start + most] for start in range(0, len(places), most))


def _finite(row: np.ndarray) -> np.ndarray:
    if not np.isfinite(row).all():
        raise BitstreamError("the stream decodes to numbers that are not finite: no sender's does")
    return row
