"""Compute device, CPU budget for threads and data-loading workers, and peak memory."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from misc.errors import UserError

WORKERS = 2


def default_device() -> str:
    """Return "cuda" if available, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str, index: int | None = None) -> torch.device:
    """Return the named device, which must be available.

    Args:
        name: cpu, cuda or cuda:N.
        index: the CUDA device that a plain "cuda" refers to; None leaves the choice to torch.

    Raises:
        UserError: not a device name, or a device that is not available.
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


def usable_autocast(dtype: str | None, device: torch.device) -> str | None:
    """Return the data type of a forward pass: `dtype`, but None (float32) for bfloat16 on an x86 CPU without AVX-512.

    Such a CPU converts every value to float32 and back, which takes several times as long as float32 itself.

    Args:
        dtype: name of torch's data type, as a config's `autocast` gives it; None is float32.
        device: where the pass runs.
    """
    is_x86_cpu = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    is_slow = is_x86_cpu and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return None if dtype == "bfloat16" and is_slow else dtype


def share_cores() -> None:
    """Leave two cores to the data-loading workers and compute with the others; OMP_NUM_THREADS overrides this.

    With more threads than free cores, every parallel region waits for the slowest thread: on two cores, a training step
    with two threads beside two workers took 2.2 times as long as with one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # sched_getaffinity does not exist on every system
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - WORKERS))


@contextmanager
def one_core() -> Iterator[None]:
    """Compute with one thread: for comparable timings, and for many small steps.

    The thread count is global to the process, so do not use this in several threads at once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak_memory(device: torch.device) -> str:
    """Return the peak memory of the process, and of a CUDA device, as text."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    held = f"{kilobytes / 1024**2:.2f} GiB"
    if device.type == "cuda":
        held += f", {torch.cuda.max_memory_allocated(device) / 1024**3:.2f} GiB on {device}"
    return held
