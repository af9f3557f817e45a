"""Processes that torchrun started to share one job; a process started otherwise is the only rank."""

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

# For one that does not answer: one that has died is noticed at once. The first may have to make a data set.
PATIENCE = timedelta(hours=1)
# Seconds. When a process ends torchrun ends the others: the one that has something to say must be the first.
GRACE = 10


class Ranks(NamedTuple):
    """This process's number and how many there are.

    What exchanges something (all methods but `share` and `seed`) must be called by all, in the same order.
    """

    rank: int
    world_size: int

    @property
    def alone(self) -> bool:
        return self.world_size == 1

    @property
    def first(self) -> bool:
        """Whether this process does what must be done once."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Returns this rank's part of what all ranks hold alike, a run of neighbours; the first's is never empty."""
        start, stop = (-(-len(items) * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return items[start:stop]

    def wait(self) -> None:
        """Returns once every rank has come here."""
        if not self.alone:
            distributed.barrier()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Returns the sum over ranks of each value, in float64; counts stay exact."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Returns the mean over ranks of each value; one that is not finite anywhere is not finite everywhere."""
        return [total / self.world_size for total in self.sum(values)]

    def gather(self, items: list[Any]) -> list[Any]:
        """Returns the items of all ranks, in the ranks' order."""
        if self.alone:
            return items
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Returns what `make` gives on the first rank; the others do not call it."""
        made = [make() if self.first else None]
        if not self.alone:
            distributed.broadcast_object_list(made)
        return made[0]

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Lets the others begin when the first has ended: it may make files that they read."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def equalise(self, *models: nn.Module) -> None:
        """Gives models, which may share parts, the first rank's parameters and buffers."""
        if self.alone:
            return
        tensors = {tensor.data_ptr(): tensor for model in models for tensor in model.state_dict().values()}
        for tensor in tensors.values():
            sent = tensor.contiguous()  # a convolution's weights lie channels last
            distributed.broadcast(sent, src=0)
            tensor.copy_(sent)

    def seed(self, seed: int) -> int:
        """Returns a seed for this rank alone; the first rank's is the job's."""
        return seed if self.first else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])


ALONE = Ranks(0, 1)


@contextmanager
def joined_ranks(patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """Joins the processes of torchrun for as long as the context lasts.

    All but the first print nothing in it. The first to fail raises its error, and where that ends others too, they exit
    without a word. All end with the torchrun that started them, even where it is killed.

    Args:
        patience: how long a rank waits for the others before it gives up.

    Raises:
        UserError: another process has ended without a word.
    """
    # Some clusters set WORLD_SIZE for everybody.
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
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
    # Not after an error: NCCL would wait for those that have died.
    distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def local_rank() -> int | None:
    """Returns this process's number on its machine; None for one that was not started by torchrun."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)


def own_device(name: str, ranks: Ranks) -> torch.device:
    """Returns the device that this rank computes on."""
    device = usable_device(name, local_rank())
    if device.type == "cuda" and not ranks.alone:
        if name != "cuda":
            raise UserError(f"--device {name} is one device for {ranks.world_size} processes: write --device cuda")
        torch.cuda.set_device(device)
    return device


def where(device: torch.device, ranks: Ranks) -> str:
    """Says what computes."""
    return str(device) if ranks.alone else f"{device.type} in {ranks.world_size} processes"
