"""Accuracy, through rounding while training and through real bytes in the test.

Where ranks share the images, each goes through its loader's part, and all get the results of the whole.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchdistill.datasets.util import build_data_loader

from misc.batch_shares import SomeBatches, shared
from misc.bitstream import unpack
from misc.cores import one_core
from misc.progress import advance, progress_bar
from misc.ranks import ALONE, Ranks
from model.split import SplitClassifier

KILOBYTE = 1024  # as in the paper's code
TIMED_IMAGES = 20
ROUNDS = 5
S = TypeVar("S")
T = TypeVar("T")


def test_loader(config: dict, ranks: Ranks = ALONE) -> DataLoader:
    """Returns the loader that a config's `test` describes, with this rank's batches of it."""
    loader_config = shared(config["test"]["test_data_loader"], SomeBatches, ranks)
    return build_data_loader(config["datasets"][loader_config["dataset_id"]], loader_config, distributed=False)


@torch.inference_mode()
def validate(model: nn.Module, loader: DataLoader, device: torch.device, ranks: Ranks = ALONE) -> dict[str, float]:
    """Returns top-1 in percent and, for a split classifier, the bits per image that its likelihoods estimate."""
    model.eval()
    correct = images = bits = 0.0
    for x, targets, *_ in loader:
        x, labels = x.to(device), labels_of(targets).to(device)
        if isinstance(model, SplitClassifier):
            logits, batch_bits = estimate(model, x)
            bits += float(batch_bits.sum())
        else:
            logits = model(x)
        correct += int((logits.argmax(1) == labels).sum())
        images += len(x)
    correct, images, bits = ranks.sum([correct, images, bits])
    result = {"top1": 100 * correct / images}
    return {**result, "bits_per_image": bits / images} if isinstance(model, SplitClassifier) else result


def estimate(student: SplitClassifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logits (B, K) and the bits (B,) that the likelihoods of the rounded latents promise."""
    y_hat, likelihoods = student.entropy_model.estimate(student.encoder(x))
    bits = -sum(torch.log2(likelihood).flatten(1).sum(1) for likelihood in likelihoods.values())
    return student.tail(student.decoder(y_hat)), bits


def labels_of(targets: Tensor | dict) -> Tensor:
    """Returns the labels of a batch, also of a data set that gives labels with maps."""
    return targets["label"] if isinstance(targets, dict) else targets


@dataclass
class Accuracy:
    """Counts top-1 and top-5 hits (top-K for fewer than five classes)."""

    images: int = 0
    top1: int = 0
    top5: int = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        self.images += len(labels)
        self.top1 += int(ranked[:, 0].sum())
        self.top5 += int(ranked.any(1).sum())

    def of_all(self, ranks: Ranks) -> "Accuracy":
        """Returns the counts of all ranks together."""
        return Accuracy(*map(int, ranks.sum([self.images, self.top1, self.top5])))

    def percent(self) -> tuple[float, float]:
        return 100 * self.top1 / self.images, 100 * self.top5 / self.images


@torch.inference_mode()
def test_classifier(
    model: nn.Module, loader: DataLoader, device: torch.device, description: str, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Returns top-1 and top-5 in percent of an uncut or cut classifier."""
    model.eval()
    accuracy = Accuracy()
    with progress_bar(None, description, len(loader.dataset)) as bar:
        for x, targets, *_ in loader:
            accuracy.update(model(x.to(device)), labels_of(targets).to(device))
            advance(bar, len(x) * ranks.world_size)
    accuracy = accuracy.of_all(ranks)
    top1, top5 = accuracy.percent()
    return {"images": accuracy.images, "top1": top1, "top5": top5}


@torch.inference_mode()
def test_student(
    student: SplitClassifier, loader: DataLoader, device: torch.device, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Sends every image as real bytes and classifies what arrives.

    Needs the coder's tables (`update()`), which trained weights hold.

    Returns:
        images; top1, top5 in percent; strings_kb (entropy-coded strings alone, as the paper counts), sent_kb (the whole
        stream) and their standard deviation over images, 1 kB = 1024 bytes; bpp_bytes and bpp_likelihood, bits per
        pixel of the network's input from the strings and from the likelihoods; edge_parameters, edge_kb (float32) and
        edge_kb_times_data_kb, the product of the edge's size and strings_kb.
    """
    student.eval()
    accuracy = Accuracy()
    strings, sent, bits, pixels = [], [], [], []
    with progress_bar(None, "student through bytes", len(loader.dataset)) as bar:
        for x, targets, *_ in loader:
            x, labels = x.to(device), labels_of(targets).to(device)
            streams = student.encode(x)
            accuracy.update(student.decode(streams), labels)
            strings += [len(unpack(stream).payload) for stream in streams]
            sent += map(len, streams)
            bits.append(float(estimate(student, x)[1].sum()))
            pixels.append(x.shape[-2] * x.shape[-1])
            advance(bar, len(x) * ranks.world_size)
    accuracy = accuracy.of_all(ranks)
    strings, sent, bits, (*_, pixels) = map(ranks.gather, (strings, sent, bits, pixels))
    top1, top5 = accuracy.percent()
    strings_kb = torch.tensor(strings, dtype=torch.float64) / KILOBYTE
    sent_kb = torch.tensor(sent, dtype=torch.float64) / KILOBYTE
    edge_parameters = student.edge_parameters()
    edge_kb = 4 * edge_parameters / KILOBYTE
    return {
        "images": accuracy.images,
        "top1": top1,
        "top5": top5,
        "strings_kb": float(strings_kb.mean()),
        "strings_kb_std": float(strings_kb.std(correction=0)),
        "sent_kb": float(sent_kb.mean()),
        "sent_kb_std": float(sent_kb.std(correction=0)),
        "bpp_bytes": float(strings_kb.mean()) * KILOBYTE * 8 / pixels,
        "bpp_likelihood": sum(bits) / accuracy.images / pixels,
        "edge_parameters": edge_parameters,
        "edge_kb": edge_kb,
        "edge_kb_times_data_kb": edge_kb * float(strings_kb.mean()),
    }


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


def results_table(results: dict) -> str:
    """Lays out the test's results for a reader; `results` has "teacher", "student" and "latency", or "model"."""
    rows = []
    for name in ("model", "teacher", "student"):
        if name in results:
            rows.append((f"{name} top-1 / top-5", f"{results[name]['top1']:.2f} % / {results[name]['top5']:.2f} %"))
    if "predictive_loss" in results:
        rows.append(("predictive loss", f"{results['predictive_loss']:.2f} points"))
    if "student" in results:
        rows += _size_rows(results["student"])
    if "latency" in results:
        encode_ms, decode_ms = results["latency"].values()
        rows.append(("encode / decode, one image", f"{encode_ms:.1f} ms / {decode_ms:.1f} ms"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _size_rows(student: dict) -> list[tuple[str, str]]:
    size = "{:.4f} ± {:.4f} kB/image ({:.1f} bytes)".format
    return [
        ("strings", size(student["strings_kb"], student["strings_kb_std"], student["strings_kb"] * KILOBYTE)),
        ("everything sent", size(student["sent_kb"], student["sent_kb_std"], student["sent_kb"] * KILOBYTE)),
        ("bpp from bytes / likelihoods", f"{student['bpp_bytes']:.4f} / {student['bpp_likelihood']:.4f}"),
        ("encoder", f"{student['edge_parameters']:,} parameters, {student['edge_kb']:.1f} kB"),
        ("encoder kB x data kB", f"{student['edge_kb_times_data_kb']:.2f}"),
    ]
