"""Time from an image on the device to the server's answer, over links of different bandwidths."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from misc.evaluation.codec_table import CodecPoint, bytes_for_accuracy

BANDWIDTHS = (0.1, 0.5, 1.0, 5.0, 20.0, 100.0)  # Mbit/s


class Route(NamedTuple):
    """One way from image to answer.

    Attributes:
        bytes_per_image: bytes sent over the link.
        encode_ms: time on the device.
        decode_ms: time on the server, up to the logits.
    """

    bytes_per_image: float
    encode_ms: float
    decode_ms: float

    def milliseconds(self, bandwidth: float) -> float:
        """Return the total time over a link of `bandwidth` Mbit/s without latency of its own."""
        return self.encode_ms + 8 * self.bytes_per_image / (1000 * bandwidth) + self.decode_ms


def codec_routes(curves: Mapping[str, Sequence[CodecPoint]], top1: float) -> dict[str, Route]:
    """Return the route of each codec that reaches an accuracy.

    The bytes are interpolated on the codec's curve; the times are those of the smallest setting that reaches it.
    """
    routes = {}
    for name, points in curves.items():
        size = bytes_for_accuracy(points, top1)
        if size is not None:
            sufficient = [point for point in points if point.top1 >= top1]
            cheapest = min(sufficient, key=lambda point: point.bytes_per_image)
            routes[name] = Route(size, cheapest.encode_ms, cheapest.decode_ms)
    return routes
