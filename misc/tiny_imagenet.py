"""Tiny ImageNet from its official archive: ImageFolders, with the validation labels applied and the boxes kept.

The archive, tiny-imagenet-200.zip (Stanford CS231n; Le and Yang 2015), has train/<wnid>/images/*.JPEG with
<wnid>_boxes.txt beside them, and val/images/*.JPEG with the classes and boxes in val_annotations.txt. Archives with
some of its classes have the same layout. Images are 64 x 64; a box is left, top, right, bottom in pixels, inclusive.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from misc.data_set import make_data_set
from misc.errors import UserError, nearest
from misc.progress import progress_bar

TOP = "tiny-imagenet-200"
TRAIN = re.compile(rf"{TOP}/train/(n\d{{8}})/images/(\1_\d+\.JPEG)")
VAL = re.compile(rf"{TOP}/val/images/(val_\d+\.JPEG)")
WNID = re.compile(r"n\d{8}")
MAX_BYTES = 1_000_000  # of one member: images of 64 x 64 have some thousands


def write_tiny_imagenet(archive: Path, root: Path, classes: Path | int | None = None) -> dict[str, Any]:
    """Writes train/ and val/, folders of wnids, train_boxes/, val_boxes/ and manifest.json; all of it or nothing.

    Args:
        archive: the zip file.
        root: folder to write to; a data set that is already there with the same arguments is left as it is.
        classes: a file with a wnid on each line, or how many of the archive's wnids.txt from its beginning; None for
            all.

    Returns:
        The manifest: the archive's sha256, class names by wnid, counts.

    Raises:
        UserError: no such archive, not in this layout, damaged, or without one of the classes; or the folder holds
            something else.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            wnids = _selected(file, archive, classes)
            with open(archive, "rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            wanted = {"data_set": "Tiny ImageNet", "archive_sha256": sha256, "classes": _names(file, archive, wnids)}
            return make_data_set(root, wanted, lambda folder: _write(file, archive, wnids, folder))
    except FileNotFoundError:
        raise UserError(f"no archive at {archive.absolute()}: expected Tiny ImageNet's zip file") from None
    except (zipfile.BadZipFile, zlib.error, IsADirectoryError, NotImplementedError) as error:
        raise UserError(f"{archive} is damaged or no zip file ({error}): fetch it again") from None


def _selected(file: zipfile.ZipFile, archive: Path, classes: Path | int | None) -> list[str]:
    """Returns the wanted wnids, which are in the archive, sorted."""
    offered = _lines(file, archive, "wnids.txt")
    for wnid in offered:
        if not WNID.fullmatch(wnid):
            raise UserError(f"wnids.txt in {archive} has '{wnid[:80]}': expected names as n01629819")
    if isinstance(classes, int):
        if not 1 <= classes <= len(offered):
            raise UserError(f"--classes {classes}: {archive} has 1 to {len(offered)}")
        return sorted(offered[:classes])
    if classes is None:
        return sorted(offered)
    try:
        wanted = sorted(set(classes.read_text().split()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes {classes} is neither a number nor a file of wnids ({error})") from None
    for wnid in wanted:
        if wnid not in offered:
            raise UserError(f"--classes {classes} names '{wnid}', which {archive} lacks{nearest(wnid, offered)}")
    if not wanted:
        raise UserError(f"--classes {classes} is empty: expected a wnid on each line")
    return wanted


def _names(file: zipfile.ZipFile, archive: Path, wnids: Sequence[str]) -> dict[str, str]:
    """Returns the words for each wnid; "" for one without."""
    words = dict(line.partition("\t")[::2] for line in _lines(file, archive, "words.txt"))
    return {wnid: words.get(wnid, "") for wnid in wnids}


def _write(file: zipfile.ZipFile, archive: Path, wnids: Sequence[str], root: Path) -> dict[str, Any]:
    counts = {"train": 0, "val": 0}
    members = list(_images(file, archive, wnids))
    for split, wnid, name, member in progress_bar(members, "unpacking"):
        folder = root / split / wnid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_read(file, archive, member))
        counts[split] += 1
    for wnid in wnids:
        lines = _lines(file, archive, f"train/{wnid}/{wnid}_boxes.txt")
        _write_lines(root / "train_boxes" / f"{wnid}_boxes.txt", lines)
    chosen = [line for line in _lines(file, archive, "val/val_annotations.txt") if line.split("\t")[1] in wnids]
    _write_lines(root / "val_boxes" / "val_annotations.txt", chosen)
    return {"num_train": counts["train"], "num_val": counts["val"]}


def _images(file: zipfile.ZipFile, archive: Path, wnids: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yields split, wnid, file name and member of each image of the classes.

    Only names of the expected form are taken, so that no member can be written anywhere else.
    """
    annotations = (line.split("\t") for line in _lines(file, archive, "val/val_annotations.txt"))
    wnid_of = {fields[0]: fields[1] for fields in annotations if len(fields) == 6}
    missing = {(split, wnid) for split in ("train", "val") for wnid in wnids}
    for member in file.namelist():
        if found := TRAIN.fullmatch(member):
            split, wnid, name = "train", found[1], found[2]
        elif found := VAL.fullmatch(member):
            split, wnid, name = "val", wnid_of.get(found[1]), found[1]
            if wnid is None:
                raise UserError(f"{archive}: val_annotations.txt has no class of {name}")
        else:
            continue
        if wnid in wnids:
            missing.discard((split, wnid))
            yield split, wnid, name, member
    for split, wnid in sorted(missing):
        raise UserError(f"{archive} has no images of {wnid} in {split}/")


def _lines(file: zipfile.ZipFile, archive: Path, name: str) -> list[str]:
    try:
        return _read(file, archive, f"{TOP}/{name}").decode().splitlines()
    except KeyError:
        raise UserError(f"{archive} has no {TOP}/{name}: expected Tiny ImageNet's official layout") from None
    except UnicodeDecodeError:
        raise UserError(f"{TOP}/{name} in {archive} is no text") from None


def _read(file: zipfile.ZipFile, archive: Path, member: str) -> bytes:
    size = file.getinfo(member).file_size
    limit = MAX_BYTES * (1 if member.endswith(".JPEG") else 20)
    if size > limit:
        raise UserError(f"{archive}: {member} says that it has {size:,} bytes; no more than {limit:,} are expected")
    return file.read(member)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
