"""Encode and decode times of single images, and steps timed in turns."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import Tensor
from torch.utils.data import DataLoader

from misc.devices import one_core
from misc.progress import progress_bar
from model.split import SplitClassifier

TIMED_IMAGES = 20
ROUNDS = 5
S = TypeVar("S")
T = TypeVar("T")


@torch.inference_mode()
def latency(student: SplitClassifier, loader: DataLoader, device: torch.device) -> dict[str, float]:
    """Returns encode_ms and decode_ms, medians over single images of the loader's first batch, at most 20.

    Encoding ends with the stream, decoding with the logits; on a CPU both use one core.
    """
    student.eval()
    images = next(iter(loader))[0][:TIMED_IMAGES].to(device).split(1)
    return latencies(images, student.encode, student.decode)


def latencies(images: Iterable[T], encode: Callable[[T], S], classify: Callable[[S], Tensor]) -> dict[str, float]:
    """Returns encode_ms and decode_ms of one image, medians over `images`, on one core.

    Args:
        images: one at a time, in the form that `encode` takes.
        encode: what runs on the edge; returns what is sent.
        classify: what runs on the server; returns logits.
    """
    seconds = []
    with one_core():
        for image in images:
            start = time.perf_counter()
            sent = encode(image)
            middle = time.perf_counter()
            classify(sent).argmax().item()  # waits for the device
            seconds.append((middle - start, time.perf_counter() - middle))
    encoding, decoding = (1000 * statistics.median(part) for part in zip(*seconds, strict=True))
    return {"encode_ms": encoding, "decode_ms": decoding}


def latencies_in_turn(measures: Sequence[Callable[[], dict[str, float]]], unit: str) -> list[dict[str, float]]:
    """Returns what each of `measures` finds, as medians over five rounds in which they take turns.

    What makes a machine slow for a while then meets all of them, and not the one whose turn it is.
    """
    with progress_bar(None, "timing", ROUNDS * len(measures), unit=unit) as bar:
        rounds = []
        for measure in [*measures] * ROUNDS:
            rounds.append(measure())
            bar.update()
    of_each = (rounds[number :: len(measures)] for number in range(len(measures)))
    return [{name: statistics.median(each[name] for each in found) for name in found[0]} for found in of_each]


Step = Callable[[], object]


def alternate(sides: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Runs all sides in turn; returns the milliseconds of each, one for each round after those that warm up."""
    warm_up = 5
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in progress_bar(range(warm_up + rounds), "rounds", unit="rounds"):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            if number >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def on_one_core(inputs: Iterator, function: Callable) -> Step:
    def step() -> None:
        with one_core(), torch.inference_mode():
            function(next(inputs))

    return step
