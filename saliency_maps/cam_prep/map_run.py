"""One run over a data set: images are read, mapped and written concurrently, in batches that never change."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError, first_few
from misc.progress import progress_bar
from saliency_maps.cam_prep.map_output import MapOutput
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper, replace_useless
from saliency_maps.map_folder import relative_image_names

# A map counts once it is flushed to the disk: milliseconds of waiting, hardly any work.
WRITERS = 8
PARTS = ("load", "forward", "backward", "projection", "write")


def open_images(root: Path, output: Path, labelled: bool) -> ImageFolder:
    """Open the data set; without labels, images may lie in any folders below `root`.

    Raises:
        UserError: there is none, `output` lies in it, or an image lies in `root` itself, outside of every folder.
    """
    if output.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--output {output} lies in --input, where it would be taken for a class: move it out")
    images = ImageFolder(root, labelled=labelled)
    loose = [name for name in image_names(images) if "/" not in name]
    if loose:
        raise UserError(
            f"{len(loose)} of the images lie in --input itself ({first_few(loose)}): move them into a folder"
        )
    return images


def image_names(images: ImageFolder) -> list[str]:
    """Return the images' paths below their root, `cat/0001.jpg`, in the order of the data set."""
    return relative_image_names(images.root, (path for path, _ in images.samples))


def batches_to_do(outputs: Sequence[MapOutput], batch_size: int) -> list[range]:
    """Return the batches, as ranges of image indices, in which a map is missing.

    The rounding of a map depends on its batch. A batch is therefore computed as a whole, so that a resumed run ends
    with the same bytes as an uninterrupted one.
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
    """Make the maps of some images and write those that are missing.

    Args:
        mapper: its model is on `device`.
        images: items are (preprocessed image, class index).
        batches: indices of images.
        outputs: where the maps go: one folder, or one per layer of a mapper with `per_layer`.
        predicted: explain the class that the teacher predicts, in place of the image's label.
        device: where the maps are computed.
        num_workers: processes that read images.
    """
    if not batches:
        return
    loader = DataLoader(images, batch_sampler=batches, num_workers=num_workers, pin_memory=device.type == "cuda")
    for output in outputs:
        output.expect([name for batch in batches for name in output.names[batch.start : batch.stop]])
    clock, loaded, num_images = mapper.clock, iter(loader), sum(map(len, batches))
    with (
        progress_bar(description="maps", total=num_images, width=120) as progress,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        writer = Writer(outputs, pool)
        for batch in batches:
            with clock("load"):
                pixels, labels = (tensor.to(device, non_blocking=True) for tensor in next(loaded))
            maps = mapper(pixels, None if predicted else labels)
            with clock("write"):
                writer.write(batch, per_output(maps))
            progress.set_postfix_str(shares(clock.seconds), refresh=False)
            progress.update(len(batch))
        with clock("write"):
            writer.finish()


class Writer:
    """Writes a batch while the next one is computed, and packs a class when its last map is written.

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
        """Wait for the previous batch, then start to write this one: maps of (outputs, images, height, width)."""
        self._collect()
        for output, written, layer_maps in zip(self._outputs, self._written, maps, strict=True):
            for index, saliency in zip(batch, layer_maps, strict=True):
                name = output.names[index]
                if name in output.missing:
                    self._pending.append(self._pool.submit(output.write, name, saliency))
                    written.append(name)

    def finish(self) -> None:
        """Return when everything is written, packs included; an error in a thread is raised here."""
        self._collect()
        self._collect()  # the packs that the first call started

    def _collect(self) -> None:
        """Wait for the pending writes, then start to pack the classes that they completed."""
        for future in self._pending:
            future.result()
        self._pending.clear()
        for output, written in zip(self._outputs, self._written, strict=True):
            self._pending += [self._pool.submit(output.pack, name) for name in output.completed(written)]
            written.clear()


def per_output(maps: Tensor) -> np.ndarray:
    """Return maps, (B, height, width) or (B, L, height, width), as (L, B, height, width), useless ones replaced."""
    maps = maps.unflatten(0, (-1, 1)) if maps.ndim == 3 else maps
    useful = replace_useless(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    return useful.transpose(0, 1).cpu().numpy()


def shares(seconds: Mapping[str, float]) -> str:
    """Return each part's share of the time, `load 3%, forward 40%, ...`; empty where no time was spent."""
    total = sum(seconds.values())
    return ", ".join(f"{part} {100 * seconds.get(part, 0) / total:.0f}%" for part in PARTS) if total else ""


def report(
    folder: Path,
    outputs: Sequence[MapOutput],
    num_images: int,
    num_damaged: int,
    num_uniform: int,
    seconds: float,
    parts: Mapping[str, float],
) -> str:
    """Return what a run did, in lines.

    Args:
        folder: where the maps are.
        outputs: the folders of maps in it.
        num_images: images that went through the teacher.
        num_damaged: existing maps that were damaged and regenerated.
        num_uniform: maps without a preference, those of earlier runs included.
        seconds: duration of the run.
        parts: seconds of each of `PARTS`; {} where there was nothing to compute.
    """
    lines = []
    if num_uniform:
        lines.append(f"{num_uniform} maps are uniform, as they were empty or not finite; the manifest names them")
    num_maps = sum(len(output.names) for output in outputs)
    if not num_images:
        return "\n".join([*lines, f"nothing to do, {num_maps} maps were there already: {folder}"])
    if parts:
        lines.append(f"time: {shares(parts)}")
    num_made = sum(len(output.missing) for output in outputs)
    damaged = f", {num_damaged} damaged ones made again" if num_damaged else ""
    there = f"{num_maps - num_made} were there already{damaged}"
    lines.append(f"{num_made} maps in {seconds:.1f} s, {num_images / seconds:.1f} images/s, {there}: {folder}")
    return "\n".join(lines)
