"""An ImageFolder that reports broken files when it is built, not in the middle of an epoch."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from misc.datasets.class_indices import class_indices
from misc.errors import UserError, first_few
from misc.progress import progress_bar
from model.classifier import num_classes_of

MOST_ELONGATED = 100
UNLABELLED = -100  # ignore_index of torch's losses
ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}


class ImageFolder(datasets.ImageFolder):
    """Images by class folder; all modes are converted to RGB.

    The constructor compares the last bytes of every file with its format's end marker and decodes only the files that
    lack it, so truncated files are reported before any training without decoding the whole data set.

    Args:
        root: folder of class folders.
        transform: from a PIL image.
        classifier: arguments of `model.backbone.create_backbone`: labels become this classifier's class indices
            (`misc.datasets.class_indices`); None numbers the class folders.
        class_map: JSON or YAML file with the classifier's class index of each class folder.
        labelled: False takes all images below `root`, in whatever folders; their label is -100, which torch's losses
            ignore.

    Raises:
        UserError: no such folder, no images in it, truncated or unreadable files (their number and the first names),
            or class folders without a class of the classifier.

    Attributes:
        has_maps: whether items carry a saliency map in their target.
        num_classes: of the labels; None without labels.
    """

    has_maps = False
    samples: list[tuple[str, int]]
    class_to_idx: dict[str, int]

    def __init__(
        self,
        root: str | Path,
        transform: Callable | None = None,
        classifier: dict | None = None,
        class_map: str | Path | None = None,
        labelled: bool = True,
    ):
        self.labelled = labelled
        if not Path(root).is_dir():
            kind = "one folder per class" if labelled else "images"
            raise UserError(f"no data set at {Path(root).absolute()}: expected a folder with {kind}")
        try:
            super().__init__(str(root), transform, loader=read_rgb)
        except FileNotFoundError as error:
            raise UserError(f"{root} is no data set: {_what_is_missing(Path(root), labelled)}") from error
        self._reject_broken_files()
        self.num_classes = len(self.classes) if labelled else None
        if labelled and classifier is not None:
            self.set_labels(num_classes_of(classifier), class_map)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the class folders and their numbers; without labels, the whole folder is one class."""
        return super().find_classes(directory) if self.labelled else ([""], {"": UNLABELLED})

    def set_labels(self, num_classes: int, class_map: str | Path | None = None) -> dict[str, int]:
        """Make a classifier's class indices the labels; return the index of each class folder.

        Args and errors: see `misc.datasets.class_indices.class_indices`.
        """
        indices = class_indices(self.classes, num_classes, class_map)
        folders = {number: folder for folder, number in self.class_to_idx.items()}
        self.samples = self.imgs = [(path, indices[folders[number]]) for path, number in self.samples]
        self.targets = [label for _, label in self.samples]
        self.class_to_idx, self.num_classes = indices, num_classes
        return indices

    def _reject_broken_files(self) -> None:
        paths = [path for path, _ in self.samples]
        with ThreadPoolExecutor(8) as pool:
            whole = pool.map(_is_whole, paths)
            if len(paths) > 100_000:
                whole = progress_bar(whole, "checking files", len(paths))
            broken = [path for path, fine in zip(paths, whole, strict=True) if not fine]
        if broken:
            raise UserError(f"{len(broken)} of {len(paths)} images are truncated or unreadable: {first_few(broken)}")


def _what_is_missing(root: Path, labelled: bool) -> str:
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if labelled else [root]
    if not folders:
        return "it has no class folders"
    without = (folder for folder in folders if not any(is_image_file(path.name) for path in folder.rglob("*")))
    return f"no image in {next(without, root)} ({', '.join(IMG_EXTENSIONS)})"


def read_rgb(path: str | Path) -> Image.Image:
    """Read an image of any mode as RGB; of 16 bits per channel, the upper eight are kept.

    Raises:
        UserError: a truncated or unreadable file, pixels of unknown range, or an aspect ratio beyond 100 (resizing the
            shorter side would blow such an image up); the message names the file.
    """
    try:
        with Image.open(path) as image:
            short, long = sorted(image.size)
            if long > MOST_ELONGATED * short:
                raise UserError(f"{path} has {image.width} x {image.height} pixels: crop it, or remove it")
            if image.mode in ("I", "F"):
                raise UserError(f"{path} has pixels of 32 bits, whose range is not known: save it with 8 bits or 16")
            return _eight_bits(image).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise various types: DDS NotImplementedError, SPIDER AttributeError
        raise UserError(f"{path} is truncated or not an image ({error}): replace or remove it") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _is_whole(path: str) -> bool:
    ending = ENDINGS.get(Path(path).suffix.lower())
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            if ending is not None and file.read().endswith(ending):
                return True
        read_rgb(path)
    except (OSError, UserError):
        return False
    return True
