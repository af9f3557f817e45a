"""Images on which an exported encoder is checked or calibrated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from misc.config.load import Config
from misc.datasets.image_folder import ImageFolder, read_rgb
from misc.deploy.class_names import folder_of_test, labelling_of_test
from misc.errors import UserError

T = TypeVar("T")


class Samples(NamedTuple):
    """Images by a common name.

    Attributes:
        name: what they are, for messages.
        images: paths, or images in memory.
        labels: their classes; None if they are not known.
    """

    name: str
    images: Sequence[Path | Image.Image]
    labels: Sequence[int] | None

    def some(self, most: int) -> "Samples":
        """Return at most so many, evenly spaced."""
        labels = None if self.labels is None else spaced(self.labels, most)
        return Samples(self.name, spaced(self.images, most), labels)


def test_samples(config: Config) -> Samples | None:
    """Return the config's test images, or None if they are not on disk."""
    folder = folder_of_test(config)
    if folder is None:
        return None
    paths, labels = zip(*ImageFolder(folder, **labelling_of_test(config)).samples, strict=True)
    return Samples("test images", [Path(path) for path in paths], labels)


def samples_of(folder: Path) -> Samples:
    """Return the images anywhere below a folder.

    Raises:
        UserError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        raise UserError(f"no images below {folder}: expected JPEG or PNG files, at any depth")
    return Samples(f"images of {folder}", paths, None)


def generated_samples(number: int) -> Samples:
    """Return images of random shapes, sizes and colours: smooth fields with noise, always the same."""
    return Samples("generated images", [_generated(np.random.default_rng(seed)) for seed in range(number)], None)


def spaced(items: Sequence[T], most: int) -> Sequence[T]:
    """Return at most so many items, evenly spaced."""
    return [items[place * len(items) // most] for place in range(most)] if len(items) > most else items


def loaded(image: Path | Image.Image) -> Image.Image:
    """Return the image as RGB."""
    return read_rgb(image) if isinstance(image, Path) else image


def _generated(rng: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in rng.integers(40, 300, 2))
    coarse = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, rng.uniform(0, 40), smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
