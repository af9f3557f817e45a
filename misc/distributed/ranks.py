"""Ranks: the processes that torchrun started to share one job; a process started otherwise is the only rank."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.rendezvous import rendezvous

from misc.devices import usable_device
from misc.errors import UserError

PATIENCE = timedelta(hours=1)  # for a rank that does not answer: the first one may have to make a data set
# Seconds. When one process ends, torchrun terminates the others: the one that reports the cause must end first.
GRACE = 10


class Ranks(NamedTuple):
    """This process's number, and the number of processes.

    Collective operations (all methods but `share` and `own_seed`) must be called by all ranks, in the same order.
    """

    rank: int
    world_size: int

    @property
    def alone(self) -> bool:
        return self.world_size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that does what must be done only once."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this rank's contiguous part of a sequence that all ranks hold; the first gets at least one item."""
        start, stop = (-(-len(items) * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return items[start:stop]

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        if not self.alone:
            distributed.barrier()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum over ranks of each value, in float64; counts stay exact."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean over ranks of each value; a value that is not finite on one rank is not finite on any."""
        return [total / self.world_size for total in self.sum(values)]

    def gather(self, items: list[Any]) -> list[Any]:
        """Return the items of all ranks, in rank order."""
        if self.alone:
            return items
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Call `make` on the first rank alone and return its result on all."""
        made = [make() if self.first else None]
        if not self.alone:
            distributed.broadcast_object_list(made)
        return made[0]

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Execute the context on the first rank before the others, which may read files that it makes."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def broadcast(self, *models: nn.Module) -> None:
        """Copy the first rank's parameters and buffers to all ranks; models may share parts."""
        if self.alone:
            return
        tensors = {tensor.data_ptr(): tensor for model in models for tensor in model.state_dict().values()}
        for tensor in tensors.values():
            sent = tensor.contiguous()  # weights of convolutions are channels last
            distributed.broadcast(sent, src=0)
            tensor.copy_(sent)

    def own_seed(self, seed: int) -> int:
        """Return a seed for this rank alone, derived from the job's; the first rank's is the job's."""
        return seed if self.first else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])


ALONE = Ranks(0, 1)


@contextmanager
def joined_ranks(patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """Join the process group of torchrun while the context lasts.

    Only the first rank prints. The rank that fails first raises its error; ranks that fail in consequence exit
    silently. All ranks end with the torchrun that started them, even if it is killed.

    Args:
        patience: how long a rank waits for the others before it gives up.

    Raises:
        UserError: another process has ended without an error of its own.
    """
    # Some clusters set WORLD_SIZE for every process.
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    Thread(target=exit_with_parent, args=(os.getppid(),), daemon=True).start()
    store, rank, world_size = next(rendezvous("env://"))
    store.set_timeout(patience)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=patience)
    try:
        with nullcontext() if rank == 0 else _silence():
            yield Ranks(rank, world_size)
    except BaseException as error:
        if store.add("failed", 1) > 1:
            time.sleep(GRACE)
            sys.exit(1)
        if isinstance(error, distributed.DistBackendError) or "gloo/transport" in str(error):
            raise UserError("another process has ended or does not answer; torchrun says below which") from error
        raise
    # Not after an error: NCCL would wait for dead ranks.
    distributed.destroy_process_group()


def exit_with_parent(parent: int) -> None:
    """End this process as soon as its parent, a process id, has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def local_rank() -> int | None:
    """Return this process's number on its machine; None if torchrun did not start it."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)


def own_device(name: str, ranks: Ranks) -> torch.device:
    """Return the device that this rank computes on, with CUDA a GPU of its own.

    Raises:
        UserError: not a device, none that is here, or one GPU for several ranks.
    """
    device = usable_device(name, local_rank())
    if device.type == "cuda" and not ranks.alone:
        if name != "cuda":
            raise UserError(f"--device {name} is one device for {ranks.world_size} processes: write --device cuda")
        torch.cuda.set_device(device)
    return device


def describe_device(device: torch.device, ranks: Ranks) -> str:
    """Return device and number of processes for a reader."""
    return str(device) if ranks.alone else f"{device.type} in {ranks.world_size} processes"
