"""One run over a data set: images are read, mapped and written at the same time, in batches that never change."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from misc.datasets.image_folder import ImageFolder
from misc.progress import progress_bar
from saliency_maps.cam_prep.map_output import MapOutput
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper, replace_useless

# A map is flushed to the disk before it counts, which takes milliseconds of waiting and no work.
WRITERS = 8
PARTS = ("load", "forward", "backward", "projection", "write")


def batches_to_do(outputs: Sequence[MapOutput], batch_size: int) -> list[range]:
    """Returns the batches, as ranges of image indices, in which a map is missing.

    The rounding of a map depends on its batch. A batch is therefore made again as a whole, so that a run that was
    interrupted ends with the same bytes as one that was not.
    """
    names = outputs[0].names
    batches = [range(start, min(start + batch_size, len(names))) for start in range(0, len(names), batch_size)]
    missing = set().union(*(output.missing for output in outputs))
    return [batch for batch in batches if not missing.isdisjoint(names[batch.start : batch.stop])]


def make_maps(
    mapper: SaliencyMapper,
    images: ImageFolder,
    batches: Sequence[range],
    outputs: Sequence[MapOutput],
    predicted: bool,
    device: torch.device,
    num_workers: int,
) -> None:
    """Makes the maps of some images and writes those that are missing.

    Args:
        mapper: its model is on `device`.
        images: items are (preprocessed image, class index).
        batches: indices of images.
        outputs: where the maps go: one folder, or one per layer of a mapper with `per_layer`.
        predicted: explain the class that the teacher predicts, in place of the image's own.
        device: where the maps are computed.
        num_workers: processes that read images.
    """
    if not batches:
        return
    loader = DataLoader(images, batch_sampler=batches, num_workers=num_workers, pin_memory=device.type == "cuda")
    for output in outputs:
        output.expect([name for batch in batches for name in output.names[batch.start : batch.stop]])
    clock, loaded, total = mapper.clock, iter(loader), sum(map(len, batches))
    with (
        progress_bar(description="maps", total=total, width=120) as progress,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        writer = Writer(outputs, pool)
        for batch in batches:
            with clock("load"):
                pixels, labels = (tensor.to(device, non_blocking=True) for tensor in next(loaded))
            maps = mapper(pixels, None if predicted else labels)
            with clock("write"):
                writer.write(batch, per_output(maps))
            progress.set_postfix_str(shares(mapper.seconds), refresh=False)
            progress.update(len(batch))
        with clock("write"):
            writer.finish()


class Writer:
    """Writes a batch while the next one is made, and packs a class when its last map is written.

    Args:
        outputs: one folder per layer.
        pool: threads that write.
    """

    def __init__(self, outputs: Sequence[MapOutput], pool: ThreadPoolExecutor) -> None:
        self._outputs = outputs
        self._pool = pool
        self._pending: list[Future] = []
        self._written: list[list[str]] = [[] for _ in outputs]

    def write(self, batch: range, maps: np.ndarray) -> None:
        """Begins to write the maps, (outputs, images, height, width), once those of the batch before are written."""
        self._collect()
        for output, written, layer_maps in zip(self._outputs, self._written, maps, strict=True):
            for index, saliency in zip(batch, layer_maps, strict=True):
                name = output.names[index]
                if name in output.missing:
                    self._pending.append(self._pool.submit(output.write, name, saliency))
                    written.append(name)

    def finish(self) -> None:
        """Returns when all is written, packs included; an error in a thread is raised here."""
        self._collect()
        self._collect()

    def _collect(self) -> None:
        """Waits for what has begun and begins to pack the classes that are complete by it."""
        for future in self._pending:
            future.result()
        self._pending.clear()
        for output, written in zip(self._outputs, self._written, strict=True):
            self._pending += [self._pool.submit(output.pack, name) for name in output.completed(written)]
            written.clear()


def per_output(maps: Tensor) -> np.ndarray:
    """Returns maps, (B, height, width) or (B, L, height, width), as (L, B, height, width) and replaces useless ones."""
    maps = maps.unflatten(0, (-1, 1)) if maps.ndim == 3 else maps
    useful = replace_useless(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    return useful.transpose(0, 1).cpu().numpy()


def shares(seconds: Mapping[str, float]) -> str:
    """Returns where the time went, `load 3%, forward 40%, ...`."""
    total = sum(seconds.values())
    return ", ".join(f"{part} {100 * seconds.get(part, 0) / total:.0f}%" for part in PARTS) if total else ""
