"""Tiny ImageNet from its official archive: ImageFolders of both splits, and the bounding boxes.

The archive, tiny-imagenet-200.zip (Stanford CS231n; Le and Yang 2015), has train/<wnid>/images/*.JPEG with
<wnid>_boxes.txt beside them, and val/images/*.JPEG with the classes and boxes in val_annotations.txt. Archives with
some of its classes have the same layout. Images are 64 x 64; a box is left, top, right, bottom in pixels, inclusive.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from misc.datasets.archives import ZipArchive
from misc.datasets.prepared import make_data_set
from misc.errors import UserError, nearest
from misc.progress import progress_bar

TOP = "tiny-imagenet-200"
TRAIN = re.compile(rf"{TOP}/train/(n\d{{8}})/images/(\1_\d+\.JPEG)")
VAL = re.compile(rf"{TOP}/val/images/(val_\d+\.JPEG)")
WNID = re.compile(r"n\d{8}")
MAX_IMAGE_BYTES = 1_000_000  # images of 64 x 64 have some thousands
MAX_TEXT_BYTES = 20_000_000


class _Image(NamedTuple):
    """A member of the archive and its destination."""

    member: str
    split: str
    wnid: str
    name: str


def write_tiny_imagenet(archive: Path, root: Path, classes: Path | int | None = None) -> dict[str, Any]:
    """Write train/ and val/ (a folder per wnid), train_boxes/, val_boxes/ and manifest.json; all or nothing.

    Args:
        archive: the zip file.
        root: folder to write to; an existing data set with the same arguments is left as it is.
        classes: a file with a wnid on each line, or N for the first N of the archive's wnids.txt; None for all.

    Returns:
        The manifest: the archive's sha256, class names by wnid, counts.

    Raises:
        UserError: no such archive, not in this layout, damaged, or without one of the classes; or the folder holds
            something else.
    """
    if not archive.exists():
        raise UserError(f"no archive at {archive.absolute()}: expected Tiny ImageNet's zip file")
    with ZipArchive(archive) as file, open(archive, "rb") as content:
        wnids = _selected(file, classes)
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        wanted = {"data_set": "Tiny ImageNet", "archive_sha256": sha256, "classes": _names(file, wnids)}
        return make_data_set(root, wanted, lambda folder: _write(file, wnids, folder))


def _selected(file: ZipArchive, classes: Path | int | None) -> list[str]:
    """Return the selected wnids, sorted; all of them are in the archive."""
    offered = _lines(file, "wnids.txt")
    for wnid in offered:
        if not WNID.fullmatch(wnid):
            raise UserError(f"wnids.txt in {file.name} has '{wnid[:80]}': expected names as n01629819")
    if classes is None:
        return sorted(offered)
    if isinstance(classes, int):
        if not 1 <= classes <= len(offered):
            raise UserError(f"--classes {classes}: {file.name} has 1 to {len(offered)}")
        return sorted(offered[:classes])
    try:
        wanted = sorted(set(classes.read_text().split()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes {classes} is neither a number nor a file of wnids ({error})") from None
    for wnid in wanted:
        if wnid not in offered:
            raise UserError(f"--classes {classes} names '{wnid}', which {file.name} lacks{nearest(wnid, offered)}")
    if not wanted:
        raise UserError(f"--classes {classes} is empty: expected a wnid on each line")
    return wanted


def _names(file: ZipArchive, wnids: Sequence[str]) -> dict[str, str]:
    """Return the class name of each wnid; "" where the archive has none."""
    words = dict(line.partition("\t")[::2] for line in _lines(file, "words.txt"))
    return {wnid: words.get(wnid, "") for wnid in wnids}


def _write(file: ZipArchive, wnids: Sequence[str], root: Path) -> dict[str, Any]:
    annotations = [line.split("\t") for line in _lines(file, "val/val_annotations.txt")]
    for fields in annotations:
        if len(fields) != 6:
            raise UserError(
                f"val_annotations.txt in {file.name} has {fields}: expected name, class and box between tabs"
            )
    images = list(_images(file, wnids, {name: wnid for name, wnid, *_ in annotations}))
    for wnid in wnids:
        _write_lines(root / "train_boxes" / f"{wnid}_boxes.txt", _lines(file, f"train/{wnid}/{wnid}_boxes.txt"))
    chosen = ["\t".join(fields) for fields in annotations if fields[1] in wnids]
    _write_lines(root / "val_boxes" / "val_annotations.txt", chosen)
    for image in progress_bar(images, "unpacking"):
        folder = root / image.split / image.wnid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / image.name).write_bytes(file.read(image.member, MAX_IMAGE_BYTES))
    splits = [image.split for image in images]
    return {"num_train": splits.count("train"), "num_val": splits.count("val")}


def _images(file: ZipArchive, wnids: Sequence[str], wnid_of: dict[str, str]) -> Iterator[_Image]:
    """Yield the images of the classes.

    Members whose names have another form are ignored, so none can be written outside the data set's folder.
    """
    missing = {(split, wnid) for split in ("train", "val") for wnid in wnids}
    wanted = set(wnids)
    for member in file.members:
        if found := TRAIN.fullmatch(member):
            image = _Image(member, "train", found[1], found[2])
        elif found := VAL.fullmatch(member):
            if found[1] not in wnid_of:
                raise UserError(f"val_annotations.txt in {file.name} has no class of {found[1]}")
            image = _Image(member, "val", wnid_of[found[1]], found[1])
        else:
            continue
        if image.wnid in wanted:
            missing.discard((image.split, image.wnid))
            yield image
    for split, wnid in sorted(missing):
        raise UserError(f"{file.name} has no images of {wnid} in {split}/")


def _lines(file: ZipArchive, name: str) -> list[str]:
    try:
        return file.read(f"{TOP}/{name}", MAX_TEXT_BYTES).decode().splitlines()
    except KeyError:
        raise UserError(f"{file.name} has no {TOP}/{name}: expected Tiny ImageNet's official layout") from None
    except UnicodeDecodeError:
        raise UserError(f"{TOP}/{name} in {file.name} is no text") from None


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
