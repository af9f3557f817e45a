"""ImageNet-1k (ILSVRC2012) from its official archives: ImageFolders with a folder per wnid.

ILSVRC2012_img_train.tar holds a tar per class, ILSVRC2012_img_val.tar the validation images, whose classes are in
ILSVRC2012_devkit_t12.tar.gz. MD5 sums are not compared, so a subset of ImageNet in the same layout works as well.
Classes are unpacked one by one, and an interrupted run resumes at its last class.
"""

import hashlib
import io
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from misc.datasets.archives import TarArchive
from misc.datasets.prepared import make_data_set
from misc.errors import UserError, first_few
from misc.progress import progress_bar

WNID = re.compile(r"n\d{8}")
CLASS_TAR = re.compile(r"n\d{8}\.tar")
TRAIN_IMAGE = re.compile(r"n\d{8}_\d+\.JPEG")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d+\.JPEG")
META = "ILSVRC2012_devkit_t12/data/meta.mat"
GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT_BYTES = 100_000_000  # of one file; the official devkit has 2.5 MB
SPACE = 1.03  # bytes on disk per byte in the archive: files occupy whole blocks


def write_imagenet(train_tar: Path, val_tar: Path, devkit: Path, root: Path) -> dict[str, Any]:
    """Write train/<wnid>/, val/<wnid>/ and manifest.json; an interrupted run resumes at its last class.

    Args:
        train_tar: ILSVRC2012_img_train.tar.
        val_tar: ILSVRC2012_img_val.tar.
        devkit: ILSVRC2012_devkit_t12.tar.gz.
        root: folder to write to, which appears when complete; an existing data set from archives of these sizes is left
            as it is.

    Returns:
        The manifest: sizes and checksum of the archives, class names by wnid, counts.

    Raises:
        UserError: an archive that is missing, damaged, in another layout or of other classes; too little space on the
            disk; or the folder holds something else.
    """
    classes, val_wnids = _read_devkit(devkit)
    wanted = {
        "data_set": "ImageNet (ILSVRC2012)",
        "train_tar_bytes": _size(train_tar),
        "val_tar_bytes": _size(val_tar),
        "devkit_sha256": hashlib.sha256(devkit.read_bytes()).hexdigest(),
        "classes": classes,
    }
    return make_data_set(root, wanted, lambda folder: _write(train_tar, val_tar, val_wnids, set(classes), folder))


def _size(path: Path) -> int:
    if not path.is_file():
        raise UserError(f"no archive at {path.absolute()}: expected one of ImageNet's official files")
    return path.stat().st_size


def _read_devkit(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the class names by wnid, sorted, and the wnids of the validation images in order of the files' names."""
    _size(path)
    with TarArchive(path, compressed=True, max_member_bytes=MAX_DEVKIT_BYTES) as devkit:
        for name in (META, GROUND_TRUTH):
            if name not in devkit.members:
                raise UserError(f"{path} is no ILSVRC2012_devkit_t12.tar.gz: it has no {name}")
        meta, truth = (devkit.read(devkit.members[name]) for name in (META, GROUND_TRUTH))
    try:
        synsets = np.atleast_1d(scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        # Synsets with children are no classes.
        leaves = {int(synset["ILSVRC2012_ID"]): synset for synset in synsets if synset["num_children"] == 0}
        names = {str(synset["WNID"]): str(synset["words"]) for synset in leaves.values()}
        val_wnids = [str(leaves[int(number)]["WNID"]) for number in truth.split()]
    except Exception as error:  # a foreign file makes scipy raise whatever it stumbles over
        raise UserError(f"{path} is no ILSVRC2012_devkit_t12.tar.gz ({error!r:.200})") from error
    for wnid in names:
        if not WNID.fullmatch(wnid):
            raise UserError(f"{path} names a class {wnid[:80]!r}: expected wnids as n01440764")
    if lacking := sorted(set(names) - set(val_wnids)):
        raise UserError(f"{path} has no validation image of {first_few(lacking)}: expected some of each class")
    return dict(sorted(names.items())), val_wnids


def _write(train_tar: Path, val_tar: Path, val_wnids: list[str], wnids: set[str], root: Path) -> dict[str, Any]:
    with _open(train_tar, CLASS_TAR) as train, _open(val_tar, VAL_IMAGE) as val:
        class_tars = _remaining(root / "train", _class_tars(train, wnids))
        images = _remaining(root / "val", _val_images(val, val_wnids))
        _require_space(root, sum(member.size for member in chain(class_tars.values(), *images.values())))
        _write_classes(root / "train", class_tars, partial(_unpack_class_tar, train))
        _write_classes(root / "val", images, partial(_copy, val))
    return {f"num_{split}": sum(1 for _ in (root / split).glob("*/*")) for split in ("train", "val")}


def _class_tars(train: TarArchive, wnids: set[str]) -> dict[str, tarfile.TarInfo]:
    """Return the tar of each class, by wnid."""
    tars = {name.removesuffix(".tar"): member for name, member in train.members.items()}
    for wnid in sorted(wnids ^ set(tars)):
        lacking = "lacks" if wnid in wnids else "has, other than the devkit,"
        raise UserError(f"{train.name} {lacking} {wnid}: expected the devkit's {len(wnids):,} classes")
    return tars


def _val_images(val: TarArchive, wnids: list[str]) -> dict[str, list[tarfile.TarInfo]]:
    """Return the validation images of each class, by wnid; `wnids` are in the order of the image names."""
    members = sorted(val.members.items())
    if len(members) != len(wnids):
        raise UserError(
            f"{val.name} has {len(members):,} images: expected {len(wnids):,}, as the devkit has classes for"
        )
    images = defaultdict(list)
    for wnid, (_, member) in zip(wnids, members, strict=True):
        images[wnid].append(member)
    return dict(sorted(images.items()))


def _remaining(root: Path, sources: dict[str, Any]) -> dict[str, Any]:
    return {wnid: source for wnid, source in sources.items() if not (root / wnid).exists()}


def _write_classes(root: Path, sources: dict[str, Any], unpack: Callable[[Any, Path], None]) -> None:
    """Unpack each class into a temporary folder that is renamed when the class is complete."""
    root.mkdir(exist_ok=True)
    part = root.with_name("part")
    for wnid, source in progress_bar(sources.items(), f"unpacking {root.name}", unit="classes"):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        unpack(source, part)
        part.rename(root / wnid)


def _unpack_class_tar(train: TarArchive, class_tar: tarfile.TarInfo, folder: Path) -> None:
    with TarArchive(f"{train.name}/{class_tar.name}", train.open(class_tar), **_named(TRAIN_IMAGE)) as images:
        _copy(images, images.members.values(), folder)


def _copy(archive: TarArchive, members: Iterable[tarfile.TarInfo], folder: Path) -> None:
    for member in members:
        archive.copy(member, folder / member.name.removeprefix("./"))


def _open(path: Path, pattern: re.Pattern[str]) -> TarArchive:
    return TarArchive(path, **_named(pattern))


def _named(pattern: re.Pattern[str]) -> dict[str, Any]:
    """Return TarArchive's arguments for files whose names match in full, and so contain no folder."""
    return {"accepts": pattern.fullmatch, "expected": f"files whose names match {pattern.pattern}"}


def _require_space(root: Path, size: int) -> None:
    needed, free = size * SPACE / 1e9, shutil.disk_usage(root).free / 1e9
    print(f"{needed:,.1f} GB to unpack, {free:,.1f} GB free at {root.parent}", flush=True)
    if needed > free:
        raise UserError(
            f"{root.parent} has {free:,.1f} GB free, {needed:,.1f} GB are needed: make room or name another"
        )
