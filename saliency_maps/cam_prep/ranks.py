"""Processes that torchrun started to share one job; a process started otherwise is the only rank."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from torch import distributed

# Ranks meet at the end of the whole data set, and their devices may differ in speed.
PATIENCE = timedelta(days=2)


class Ranks(NamedTuple):
    """This process's number and how many there are."""

    rank: int
    world_size: int

    @property
    def first(self) -> bool:
        """Whether this process does what must be done once."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Returns this rank's part of what all ranks hold alike, a run of neighbours."""
        start, stop = (len(items) * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return items[start:stop]

    def wait(self) -> None:
        """Returns once every rank has come here."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Joins the process group of torchrun for as long as the context lasts; on the CPU, as only waiting is needed."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(0, 1)
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def local_rank() -> int:
    """Returns this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
