"""What the server counts, for Prometheus."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METRICS_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        common: Any = {"namespace": "frankensplit", "registry": self._registry}
        by_endpoint = ["endpoint"]
        self._requests = Counter("requests", "Requests by endpoint and status", [*by_endpoint, "status"], **common)
        self._seconds = Histogram("request_seconds", "Seconds per request", by_endpoint, buckets=SECONDS, **common)
        self._bytes = Counter("received_bytes", "Bytes of streams received", **common)
        self._batches = Histogram("batch_size", "Streams per batch", buckets=SIZES, **common)
        self._model = Histogram("model_seconds", "Seconds per batch", buckets=SECONDS, **common)
        self.queue_length = Gauge("queue_length", "Streams that wait", **common)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self._requests.labels(endpoint, status).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def received(self, num_bytes: int) -> None:
        """Count the bytes of a stream."""
        self._bytes.inc(num_bytes)

    def batch(self, streams: int, seconds: float) -> None:
        """Count a decoded batch."""
        self._batches.observe(streams)
        self._model.observe(seconds)

    def text(self) -> bytes:
        """Return all values in Prometheus's text format."""
        return generate_latest(self._registry)
