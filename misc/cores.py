"""Who gets which CPU cores: threads that compute and processes that read images must not fight for the same ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

READERS = 2


def share_cores() -> None:
    """Leaves two cores to the processes that read images, and computes with the others; OMP_NUM_THREADS overrules it.

    With more threads than free cores every parallel region waits for the slowest: on two cores a training step with two
    threads beside two reading processes took 2.2 times as long as with one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # Not every system can say which cores a process may use.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - READERS))


@contextmanager
def one_core() -> Iterator[None]:
    """Computes with one thread: what is timed can be compared, and a device has little more to give.

    The number is the whole process's: not for use in several threads at once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
