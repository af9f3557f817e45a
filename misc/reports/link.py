"""How long an image takes from the device to the server's answer, over links of different bandwidths."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from misc.evaluation.codec_table import CodecPoint, bytes_for_accuracy

BANDWIDTHS = (0.1, 0.5, 1.0, 5.0, 20.0, 100.0)  # Mbit/s


class Route(NamedTuple):
    """One way to the answer.

    Attributes:
        bytes_per_image: that cross the link.
        encode_ms: on the device.
        decode_ms: on the server, up to the logits.
    """

    bytes_per_image: float
    encode_ms: float
    decode_ms: float

    def milliseconds(self, bandwidth: float) -> float:
        """Returns the sum of the three parts over a link of `bandwidth` Mbit/s, which adds no delay of its own."""
        return self.encode_ms + 8 * self.bytes_per_image / (1000 * bandwidth) + self.decode_ms


def codec_routes(curves: Mapping[str, Sequence[CodecPoint]], top1: float) -> dict[str, Route]:
    """Returns each codec's route to an accuracy, without the codecs that never reach it.

    The bytes are interpolated on the codec's curve; the times are those of the cheapest quality that reaches it.
    """
    routes = {}
    for name, points in curves.items():
        size = bytes_for_accuracy(points, top1)
        if size is not None:
            reaching = [point for point in points if point.top1 >= top1]
            cheapest = min(reaching, key=lambda point: point.bytes_per_image)
            routes[name] = Route(size, cheapest.encode_ms, cheapest.decode_ms)
    return routes
