"""Batches that ranks share: each rank takes a part of every training batch, but whole batches of an evaluation.

A config's batch_size is that of the whole batch. In the last digits an image's results depend on the other images of
its batch: as an evaluation shares whole batches, its results are the same for any number of ranks.
"""

from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch.utils.data import BatchSampler, DataLoader, Sampler
from torchdistill.datasets.registry import register_batch_sampler

from misc.distributed.ranks import Ranks
from misc.errors import UserError


class CommonBatches(Sampler[list[int]]):
    """Base class: batches of indices, drawn alike on all ranks.

    Args:
        sampler: of the images' indices.
        ranks: processes that share the batches.
        batch_size: of all ranks together.
        drop_last: drop a last batch that is not full.
    """

    def __init__(self, sampler: Sampler[int], ranks: Ranks, batch_size: int = 1, drop_last: bool = False):
        self.batches = BatchSampler(sampler, batch_size, drop_last)
        self.ranks = ranks

    def drawn(self, seed: int) -> list[list[int]]:
        """Return an epoch's batches; the random state of the process is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA too
            return list(self.batches)


@register_batch_sampler
class PartOfEachBatch(CommonBatches):
    """This rank's part of every batch; the first rank draws a new order for every epoch."""

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
    """Whole batches, each taken by one rank; the first rank takes the first batch."""

    def __len__(self) -> int:
        return len(self.ranks.share(range(len(self.batches))))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.ranks.share(self.drawn(seed=0)))


def shared(loader_config: dict, kind: type[CommonBatches], ranks: Ranks) -> dict:
    """Return a loader's config with this rank's batches.

    Args:
        loader_config: as torchdistill's `build_data_loader` reads it.
        kind: how ranks share the batches.
        ranks: processes that share them; for a single one the config is returned unchanged.

    Raises:
        UserError: the config has a batch_sampler already.
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
    """Refuse training batches that ranks cannot share in equal parts.

    Args:
        place: where in the config the loader is.
        loader: as a single process would use it.
        ranks: processes that would share its batches.

    Raises:
        UserError: names the size of the batch, or of the last one.
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
