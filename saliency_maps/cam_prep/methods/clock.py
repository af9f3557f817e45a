"""Where the time of a run goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds summed by name. On CUDA the clock waits for the device, so that work counts where it is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time of the context under `name`."""
        start = self._now(device)
        try:
            yield
        finally:
            self.seconds[name] += self._now(device) - start

    @staticmethod
    def _now(device: torch.device | None) -> float:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()
