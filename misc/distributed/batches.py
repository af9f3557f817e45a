"""Batches that ranks share: of each training batch every rank takes a part, of the others each takes some whole ones.

A config's batch_size is that of the whole batch. An evaluation shares whole ones, as an image's numbers depend, in
their last digits, on the batch it is in: so they are the same for any number of ranks.
"""

from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch.utils.data import BatchSampler, DataLoader, Sampler
from torchdistill.datasets.registry import register_batch_sampler

from misc.distributed.ranks import Ranks
from misc.errors import UserError


class CommonBatches(Sampler[list[int]]):
    """Base: batches of indices that all ranks draw alike.

    Args:
        sampler: of indices of images.
        ranks: who shares them.
        batch_size: of all ranks together.
        drop_last: leaves out a last batch that is not full.
    """

    def __init__(self, sampler: Sampler[int], ranks: Ranks, batch_size: int = 1, drop_last: bool = False):
        self.batches = BatchSampler(sampler, batch_size, drop_last)
        self.ranks = ranks

    def drawn(self, seed: int) -> list[list[int]]:
        """Returns an epoch's batches; the state of the random numbers stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach CUDA's too
            return list(self.batches)


@register_batch_sampler
class PartOfEachBatch(CommonBatches):
    """Of every batch this rank's part. The order is the first rank's draw, hence another in every epoch."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        seed = self.ranks.from_first(lambda: int(torch.empty((), dtype=torch.int64).random_()))
        for batch in self.drawn(seed):
            if len(batch) % self.ranks.world_size:
                raise UserError(f"{self.ranks.world_size} processes do not divide a batch of {len(batch)} images")
            yield self.ranks.share(batch)


@register_batch_sampler
class SomeBatches(CommonBatches):
    """Whole batches, each of which one rank takes; the first batch is the first rank's."""

    def __len__(self) -> int:
        return len(self.ranks.share(range(len(self.batches))))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.ranks.share(self.drawn(seed=0)))


def shared(loader_config: dict, kind: type[CommonBatches], ranks: Ranks) -> dict:
    """Returns a loader's config with this rank's batches.

    Args:
        loader_config: as torchdistill's `build_data_loader` reads it.
        kind: how ranks share them.
        ranks: a single one leaves the config as it is.

    Raises:
        UserError: it has a batch_sampler already.
    """
    if ranks.alone:
        return loader_config
    if loader_config.get("batch_sampler") is not None:
        raise UserError(f"a batch_sampler cannot be shared among {ranks.world_size} processes: drop it")
    kwargs = dict(loader_config["kwargs"])
    batches = {name: kwargs.pop(name) for name in ("batch_size", "drop_last") if name in kwargs}
    batch_sampler = {"key": kind.__name__, "kwargs": {"ranks": ranks, **batches}}
    return {**loader_config, "batch_sampler": batch_sampler, "kwargs": kwargs}


def check_batches(place: str, loader: DataLoader, ranks: Ranks) -> None:
    """Refuses training batches that ranks cannot share in equal parts.

    Args:
        place: where in the config the loader is.
        loader: that of one process.
        ranks: who would share its batches.

    Raises:
        UserError: the size of the batch, or of the last one.
    """
    size = loader.batch_size or 1
    if size % ranks.world_size:
        raise UserError(
            f"{place}: batch_size is of the whole batch, and {ranks.world_size} processes do not divide {size}"
        )
    last = len(loader.sampler) % size
    if last % ranks.world_size and not loader.drop_last:
        processes = f"{ranks.world_size} processes do not divide"
        raise UserError(f"{place}: the last batch has {last} images, which {processes}: set drop_last: true")
