"""Compute device, CPU budget for threads and data-loading workers, and peak memory."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from misc.errors import UserError

READERS = 2


def default_device() -> str:
    """Return "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str, index: int | None = None) -> torch.device:
    """Return a device that this machine has.

    Args:
        name: cpu, cuda or cuda:N.
        index: which CUDA device a plain "cuda" means; None leaves it to torch.

    Raises:
        UserError: not a device, or none that is here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and device.index is None and index is not None:
        device = torch.device("cuda", index)
    if device.type == "cpu":
        return device
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here; use --device cpu")
    return device


def share_cores() -> None:
    """Leave two cores to the data-loading workers and compute with the others; OMP_NUM_THREADS overrides this.

    With more threads than free cores every parallel region waits for the slowest: on two cores a training step with two
    threads beside two reading processes took 2.2 times as long as with one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # Not every system can say which cores a process may use.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - READERS))


@contextmanager
def one_core() -> Iterator[None]:
    """Compute with one thread, so that timings are comparable; a device has little more to offer.

    The number of threads is the whole process's: not for use in several threads at once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak_memory(device: torch.device) -> str:
    """Return the most memory that the process has held, and on CUDA the device's, for a reader."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    held = f"{kilobytes / 1024**2:.2f} GiB"
    if device.type == "cuda":
        held += f", {torch.cuda.max_memory_allocated(device) / 1024**3:.2f} GiB on {device}"
    return held
