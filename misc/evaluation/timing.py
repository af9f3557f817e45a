"""Latency of single images, and alternating measurements of several alternatives."""

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
CPU = torch.device("cpu")
S = TypeVar("S")
T = TypeVar("T")
Step = Callable[[], object]


@torch.inference_mode()
def latency(student: SplitClassifier, loader: DataLoader, device: torch.device) -> dict[str, float]:
    """Return encode_ms and decode_ms, medians over the first batch's images one at a time, at most 20.

    Encoding ends with the bitstream, decoding with the logits; on a CPU both use one core.
    """
    student.eval()
    images = next(iter(loader))[0][:TIMED_IMAGES].to(device).split(1)
    return latencies(images, student.encode, student.decode)


def latencies(images: Iterable[T], encode: Callable[[T], S], classify: Callable[[S], Tensor]) -> dict[str, float]:
    """Return encode_ms and decode_ms of one image, medians over `images`, on one core.

    Args:
        images: one at a time, in the form `encode` takes.
        encode: the part on the device; returns what is sent.
        classify: the part on the server; returns logits.
    """
    seconds = []
    with one_core():
        for image in images:
            start = time.perf_counter()
            sent = encode(image)
            middle = time.perf_counter()
            classify(sent).argmax().item()  # waits for the accelerator
            seconds.append((middle - start, time.perf_counter() - middle))
    encoding, decoding = (1000 * statistics.median(part) for part in zip(*seconds, strict=True))
    return {"encode_ms": encoding, "decode_ms": decoding}


def latencies_in_turn(measures: Sequence[Callable[[], dict[str, float]]], unit: str) -> list[dict[str, float]]:
    """Return the result of each of `measures`, as medians over five rounds in which they alternate.

    A machine that is slow for a while then slows all of them, not the one being measured.
    """
    with progress_bar(None, "timing", ROUNDS * len(measures), unit=unit) as bar:
        rounds = []
        for measure in [*measures] * ROUNDS:
            rounds.append(measure())
            bar.update()
    of_each = (rounds[number :: len(measures)] for number in range(len(measures)))
    return [{name: statistics.median(each[name] for each in found) for name in found[0]} for found in of_each]


def alternate(
    sides: Mapping[str, Step], rounds: int, device: torch.device = CPU, warm_up: int = 5
) -> dict[str, list[float]]:
    """Run all sides in turn and return the milliseconds of each, one value per round.

    Args:
        sides: what is compared, by name.
        rounds: measured rounds, in which each side runs once.
        device: where the sides compute; their work is finished before the time is read.
        warm_up: rounds before the measured ones.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in progress_bar(range(warm_up + rounds), "rounds", unit="rounds"):
        for name, step in sides.items():
            start = now(device)
            step()
            times[name].append(1000 * (now(device) - start))
    return {name: milliseconds[warm_up:] for name, milliseconds in times.items()}


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def on_one_core(inputs: Iterator, function: Callable) -> Step:
    """Return a step that applies `function` to the next input, on one core and without gradients."""

    def step() -> None:
        with one_core(), torch.inference_mode():
            function(next(inputs))

    return step
