"""Digits on photographs: a data set composed from images that scikit-learn ships.

Each image is 64 x 64 RGB: one of scikit-learn's 1,797 handwritten digits (UCI Optical Recognition of Handwritten
Digits, 8 x 8 grey) in random place, size, slant and colour on a random crop of one of its two sample photographs. The
digit is the label; the composition mask of each val image is kept as ground truth for saliency. Train and val share no
digit and no photograph region: the photographs are cut at fixed columns, the digits by a seeded, stratified split.

scikit-learn is imported only to compose: every config imports this module, and most have other data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from misc.datasets.prepared import make_data_set
from misc.progress import progress_bar

SIZE = 64
NUM_TRAIN, NUM_VAL = 12_000, 2_000
# The strip of each photograph that a split's backgrounds come from, as shares of the width.
REGIONS = {"train": (0.0, 0.66), "val": (0.68, 1.0)}
MIN_CONTRAST = 0.4


@dataclass(frozen=True)
class Composition:
    """One image: pixels (64, 64, 3) uint8, mask (64, 64) uint8 in {0, 255}, and where its parts came from."""

    pixels: np.ndarray
    mask: np.ndarray
    label: int
    digit_index: int
    photo_index: int
    photo_box: tuple[int, int, int, int]


def split_digits(seed: int) -> dict[str, np.ndarray]:
    """Return the indices into `load_digits()` of each split, three quarters and one quarter of every class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    train, val = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=seed)
    return {"train": np.sort(train), "val": np.sort(val)}


def compose(split: str, count: int, seed: int) -> Iterator[Composition]:
    """Yield `count` compositions of `split` ("train" or "val"), cycling through the classes; deterministic."""
    from sklearn.datasets import load_digits, load_sample_images

    digits, photos = load_digits(), [Image.fromarray(photo) for photo in load_sample_images().images]
    indices = split_digits(seed)[split]
    of_class = [indices[digits.target[indices] == label] for label in range(10)]
    rng = np.random.default_rng([seed, list(REGIONS).index(split)])
    for number in range(count):
        label = number % 10
        digit_index = int(rng.choice(of_class[label]))
        photo_index = int(rng.integers(len(photos)))
        background, box = _random_crop(photos[photo_index], REGIONS[split], rng)
        alpha = _random_digit(digits.images[digit_index], rng)
        pixels = _blend(background, alpha, rng)
        mask = np.where(alpha > 0.5, 255, 0).astype(np.uint8)
        yield Composition(pixels, mask, label, digit_index, photo_index, box)


def _random_crop(photo: Image.Image, strip: tuple[float, float], rng) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    left, right = (round(share * photo.width) for share in strip)
    side = int(rng.integers(SIZE, min(right - left, photo.height) + 1))
    x, y = int(rng.integers(left, right - side + 1)), int(rng.integers(0, photo.height - side + 1))
    box = (x, y, x + side, y + side)
    # Crop, then resize: the interpolation must not reach pixels outside the box.
    crop = photo.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(crop, dtype=np.float32) / 255, box


def _random_digit(image: np.ndarray, rng) -> np.ndarray:
    """Return the digit's opacity (64, 64) in [0, 1], wholly inside the frame."""
    side = int(rng.integers(28, 47))
    glyph = Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    glyph = glyph.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (SIZE, SIZE))
    canvas.paste(glyph, tuple(int(place) for place in rng.integers(0, SIZE - side + 1, 2)))
    opacity = np.asarray(canvas, dtype=np.float32) / 255
    return np.clip((opacity - 0.32) / 0.36, 0, 1)  # sharpen the stroke, which upsampling has blurred


def _blend(background: np.ndarray, alpha: np.ndarray, rng) -> np.ndarray:
    """Paint the digit in a random colour whose luminance stands out from the background beneath it."""
    luminance = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    beneath = float((background @ luminance)[alpha > 0.5].mean())
    while True:
        colour = rng.random(3, dtype=np.float32)
        if abs(float(colour @ luminance) - beneath) >= MIN_CONTRAST:
            break
    opacity = alpha[..., None]
    blended = background * (1 - opacity) + colour * opacity
    return (np.clip(blended, 0, 1) * 255).round().astype(np.uint8)


def write_data_set(root: str | Path, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = 0) -> dict:
    """Write train/ and val/ as ImageFolders, with val_masks/ and manifest.json beside them; all or nothing.

    Args:
        root: folder to write to; an existing data set with the same arguments is left as it is.
        num_train: images in train/.
        num_val: images in val/.
        seed: of every random choice; the same seed and package versions give the same bytes.

    Returns:
        The manifest: seed, counts, the digits of each split, photograph regions, package versions.

    Raises:
        UserError: the folder holds another data set.
    """
    import sklearn

    wanted = {"data_set": "digits on photographs", "seed": seed, "num_train": num_train, "num_val": num_val}

    def write(folder: Path) -> dict:
        for split, count in (("train", num_train), ("val", num_val)):
            progress = progress_bar(compose(split, count, seed), f"composing {split}", count)
            for number, composition in enumerate(progress):
                _write(folder, split, f"{number:05d}.png", composition)
        return {
            "digits": {split: indices.tolist() for split, indices in split_digits(seed).items()},
            "photograph_columns": REGIONS,
            "versions": {package.__name__: package.__version__ for package in (np, PIL, sklearn)},
        }

    return make_data_set(Path(root), wanted, write)


def _write(root: Path, split: str, name: str, composition: Composition) -> None:
    for folder, pixels in ((split, composition.pixels), (f"{split}_masks", composition.mask)):
        if folder == "train_masks":
            continue
        path = root / folder / str(composition.label) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=3)


def split_folder(root: str, split: str) -> str:
    """Return the folder of a config's split; compose the data set first if the root folder does not exist."""
    if not Path(root).exists():
        print(
            f"The data set {root} does not exist yet: composing digits on photographs (about 20 seconds).", flush=True
        )
        write_data_set(root)
    return str(Path(root) / split)
