"""Compare the coding of a student's latents across settings (threads, batch size, device, ...), exact and in floats.

The reference is one thread on the CPU in batches of 64. Under every other setting the same latents are encoded again
and the reference's bytes are decoded; the first table counts images:

    exact: bytes, y_hat    the bytes, or the decoded y_hat, differ in any bit
    float: tables          with float networks, the receiver selects another table and desynchronises
    float: y_hat           with float networks, y_hat differs in any bit although the symbols are right
    g_a                    the bytes differ if the encoder (floats) also runs under the setting; they still decode

The second table has sizes in bytes per image, and median times of single images in ms.
"""

import argparse
import contextlib
import csv
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from misc.errors import exit_on_user_error
from misc.evaluation.accuracy import estimate
from misc.evaluation.evaluate import evaluation_loader
from misc.evaluation.timing import latency
from misc.files import write_atomically
from misc.progress import progress_bar
from misc.training.run_folder import load_student
from model.coding.ans import Tables
from model.coding.channel import Receiver, Sender, numbers, placed
from model.coding.exact import ONE
from model.coding.transmission import HyperTransmission
from model.split import SplitClassifier

NETWORKS = ("h_a", "h_s", "context", "parameters")


@dataclass(frozen=True)
class Setting:
    """The conditions under which latents are coded."""

    name: str
    batch: int = 64
    threads: int = 1
    onednn: bool = True
    channels_last: bool = False
    compiled: bool = False
    device: str = "cpu"


REFERENCE = Setting("reference")
SETTINGS = [
    Setting("2 threads", threads=2),
    Setting("oneDNN off", onednn=False),
    Setting("channels last", channels_last=True),
    Setting("batch 1", batch=1),
    Setting("batch 16", batch=16),
    Setting("torch.compile", compiled=True),
    Setting("CUDA", device="cuda"),
]


class Floating(nn.Module):
    """A float network with fixed-point input and output."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x / ONE).float()).double() * ONE


class Replay:
    """A receiver that returns what a sender sent, and notes for which images another table would have been used."""

    def __init__(self, sender: Sender, images: int, device: torch.device):
        self._calls = iter(sender.calls)
        self._device = device
        self.other_tables = np.zeros(images, bool)

    def code(self, values: None, indexes: Tensor, tables: Tables, parity: int | None = None) -> Tensor:
        _, symbols, sent_indexes = next(self._calls)
        self.other_tables |= (numbers(indexes, parity) != sent_indexes).any(1)
        return placed(torch.from_numpy(symbols).to(self._device, torch.float64), indexes.shape, parity)


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of trained students")
    parser.add_argument("--images", type=int, default=2000, help="of each run's test data (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="CSV", help="also write the first table here")
    return parser


@exit_on_user_error
@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    # torch warns about GPU features although no GPU is used.
    warnings.filterwarnings("ignore", "TF32 acceleration")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    settings = [setting for setting in SETTINGS if setting.device == "cpu" or torch.cuda.is_available()]
    counts, sizes = [], []
    torch.set_num_threads(REFERENCE.threads)
    for run in args.runs:
        student, config = load_student(run, torch.device("cpu"))
        x = first_images(config, args.images)
        rows, reference = compare(student, x, settings, type(student.entropy_model).__name__)
        counts += rows
        sizes.append(measure(student, config, x, *reference))
        print(f"{run.name}: {len(x):,} images", flush=True)
        if args.output:
            write_csv(args.output, counts)
    if not torch.cuda.is_available():
        print("CUDA: not run, torch sees no device")
    print(f"\n{markdown(counts)}\n\n{markdown(sizes)}")


def first_images(config: dict, count: int) -> Tensor:
    """Return the first images of the config's test data, transformed."""
    images, found = [], 0
    for x, *_ in evaluation_loader(config):
        images.append(x)
        found += len(x)
        if found >= count:
            break
    return torch.cat(images)[:count]


def compare(
    student: SplitClassifier, x: Tensor, settings: list[Setting], prior: str
) -> tuple[list[dict], tuple[Tensor, list[bytes], list[bytes]]]:
    """Return a row per setting, and the reference's latents, exact strings and float strings."""
    with applied(REFERENCE, student):
        y = torch.cat([student.encoder(part) for part in x.split(REFERENCE.batch)])
        strings, y_hat, _ = send(transmission(student, floats=False), y, REFERENCE)
        float_strings, float_y_hat, senders = send(transmission(student, floats=True), y, REFERENCE)
    rows = []
    for setting in progress_bar(settings, prior, len(settings), unit="settings"):
        with applied(setting, student):
            coder = transmission(student, floats=False, compiled=setting.compiled)
            again, *_ = send(coder, y, setting)
            decoded = receive(coder, strings, y.shape[-2:], setting)
            other_y = torch.cat([encode(student, part, setting) for part in x.split(setting.batch)])
            moved, *_ = send(coder, other_y, setting)
            float_coder = transmission(student, floats=True, compiled=setting.compiled)
            tables, float_decoded = replay(float_coder, senders, len(y), y.shape[-2:], setting)
        rows.append(
            {
                "prior": prior,
                "setting": setting.name,
                "images": len(x),
                "exact: bytes": sum(a != b for a, b in zip(again, strings, strict=True)),
                "exact: y_hat": differing(decoded, y_hat),
                "float: tables": int(tables.sum()),
                "float: y_hat": differing(float_decoded, float_y_hat),
                "g_a": sum(a != b for a, b in zip(moved, strings, strict=True)),
            }
        )
    return rows, (y, strings, float_strings)


@contextlib.contextmanager
def applied(setting: Setting, student: SplitClassifier) -> Iterator[None]:
    """Apply a setting; restore the reference on exit."""
    memory_format = torch.channels_last if setting.channels_last else torch.contiguous_format
    torch.set_num_threads(setting.threads)
    student.to(setting.device, memory_format=memory_format)
    try:
        with torch.backends.mkldnn.flags(enabled=setting.onednn):
            yield
    finally:
        torch.set_num_threads(REFERENCE.threads)
        student.to(REFERENCE.device, memory_format=torch.contiguous_format)


def transmission(student: SplitClassifier, floats: bool, compiled: bool = False) -> Callable[..., Tensor]:
    """Return the transmission of the student's prior, with exact or with float networks."""
    model = student.entropy_model
    made = model.transmission(model.codec)
    if not isinstance(made, HyperTransmission):
        return made
    if floats:
        made.mean_step = 2.0**-8  # finer than float32's resolution at this magnitude
        made.h_a, made.h_s = Floating(model.codec.hyper.h_a), Floating(model.codec.hyper.h_s)
        if hasattr(made, "context"):
            made.context = Floating(model.codec.y.context_prediction)
            made.parameters = Floating(model.codec.y.entropy_parameters)
            use_windows(made)
    if compiled:
        for name in NETWORKS:
            if hasattr(made, name):
                setattr(made, name, torch.compile(getattr(made, name)))
    return made


def use_windows(made: HyperTransmission) -> None:
    """Let a padded float convolution be applied to single windows, as the exact one without padding is."""
    reach = getattr(made, "reach", None)
    if reach is not None:
        whole = made.context
        made.context = lambda window: whole(window)[..., reach : reach + 1, reach : reach + 1]


def encode(student: SplitClassifier, x: Tensor, setting: Setting) -> Tensor:
    """Return y, encoded under a setting, on the CPU."""
    return student.encoder(_placed(x, setting)).cpu()


def send(coder: Callable, y: Tensor, setting: Setting) -> tuple[list[bytes], Tensor, list[Sender]]:
    """Return the strings of all images, y_hat, and the senders of all batches."""
    senders, y_hat = [], []
    for part in y.split(setting.batch):
        senders.append(Sender(len(part)))
        y_hat.append(coder(senders[-1], len(part), tuple(part.shape[-2:]), _placed(part, setting)).cpu())
    return [string for sender in senders for string in sender.strings()], torch.cat(y_hat), senders


def receive(coder: Callable, strings: list[bytes], size: tuple[int, int], setting: Setting) -> Tensor:
    """Return y_hat of all strings."""
    y_hat = []
    for start in range(0, len(strings), setting.batch):
        part = strings[start : start + setting.batch]
        receiver = Receiver(part, torch.device(setting.device))
        y_hat.append(coder(receiver, len(part), tuple(size), None).cpu())
        receiver.finish()
    return torch.cat(y_hat)


def replay(
    coder: Callable, senders: list[Sender], images: int, size: tuple[int, int], setting: Setting
) -> tuple[np.ndarray, Tensor]:
    """Return which images would be read with other tables than the sender's, and y_hat from the right symbols."""
    whole = Sender(images)
    for calls in zip(*(sender.calls for sender in senders), strict=True):
        tables, symbols, indexes = zip(*calls, strict=True)
        whole.calls.append((tables[0], np.concatenate(symbols), np.concatenate(indexes)))
    other, y_hat = [], []
    for start in range(0, images, setting.batch):
        part, count = Sender(images), min(setting.batch, images - start)
        part.calls = [(t, s[start : start + count], i[start : start + count]) for t, s, i in whole.calls]
        line = Replay(part, count, torch.device(setting.device))
        y_hat.append(coder(line, count, tuple(size), None).cpu())
        other.append(line.other_tables)
    return np.concatenate(other), torch.cat(y_hat)


def differing(a: Tensor, b: Tensor) -> int:
    """Return the number of images in which two tensors differ."""
    return int((a != b).flatten(1).any(1).sum())


def measure(
    student: SplitClassifier, config: dict, x: Tensor, y: Tensor, strings: list[bytes], float_strings: list[bytes]
) -> dict:
    """Return a row of sizes in bytes per image and of times in ms."""
    exact, floats = (sum(map(len, each)) / len(x) for each in (strings, float_strings))
    sent = sum(len(stream) for part in x.split(REFERENCE.batch) for stream in student.encode(part)) / len(x)
    bits = sum(float(estimate(student, part)[1].sum()) for part in x.split(REFERENCE.batch))
    times = latency(student, evaluation_loader(config), torch.device("cpu"))
    return {
        "prior": type(student.entropy_model).__name__,
        "likelihoods": round(bits / 8 / len(x), 2),
        "exact": round(exact, 2),
        "float": round(floats, 2),
        "cost of exact": f"{100 * (exact / floats - 1):+.2f} %",
        "sent": round(sent, 2),
        "container": round(sent - exact, 2),
        **{name: round(value, 1) for name, value in times.items()},
    }


def _placed(x: Tensor, setting: Setting) -> Tensor:
    memory_format = torch.channels_last if setting.channels_last else torch.contiguous_format
    return x.to(setting.device, memory_format=memory_format)


def markdown(rows: list[dict]) -> str:
    """Format rows as a Markdown table."""
    lines = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row.values()))} |" for row in rows])


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


if __name__ == "__main__":
    main()
