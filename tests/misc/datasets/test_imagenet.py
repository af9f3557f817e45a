"""ImageNet from a miniature of its official archives that is made here."""

import io
import tarfile
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import imagenet as torchvision_imagenet

from misc.datasets.archives import TarArchive
from misc.datasets.image_folder import ImageFolder
from misc.datasets.imagenet import META, write_imagenet
from misc.errors import UserError

# As in the official devkit, ids are in another order than wnids, and synsets that have children are no classes.
SYNSETS = {
    1: ("n00000003", "cat, true cat"),
    2: ("n00000001", "dog"),
    3: ("n00000002", "fox"),
    4: ("n00000009", "animal"),
}
CLASSES = {"n00000001": "dog", "n00000002": "fox", "n00000003": "cat, true cat"}
VAL_IDS = [2, 1, 3, 3, 2]
MODES = ("RGB", "L", "CMYK")


class Archives(NamedTuple):
    train: Path
    val: Path
    devkit: Path


def jpeg(number: int) -> bytes:
    """Return the file of a 12 x 8 image: colour, grey or CMYK, in turn."""
    buffer = io.BytesIO()
    Image.new(MODES[number % 3], (12, 8), number % 256).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def class_tar(wnid: str) -> bytes:
    return tar_of({f"{wnid}_{number}.JPEG": jpeg(10 * int(wnid[1:]) + number) for number in range(3)})


def train_members() -> dict[str, bytes]:
    return {f"{wnid}.tar": class_tar(wnid) for wnid in CLASSES}


def val_members() -> dict[str, bytes]:
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, len(VAL_IDS) + 1)]
    return {name: jpeg(100 + int(name[15:23])) for name in reversed(names)}


def devkit_members(val_ids: list[int] = VAL_IDS) -> dict[str, bytes]:
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    synsets = np.empty((len(SYNSETS), 1), [(field, object) for field in fields])
    for row, (number, (wnid, words)) in enumerate(SYNSETS.items()):
        children = [1, 2, 3] if words == "animal" else []
        synsets[row, 0] = (float(number), wnid, words, "a gloss", float(len(children)), np.array([children], float))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{number}\n" for number in val_ids).encode()
    folder = "ILSVRC2012_devkit_t12/data"
    return {f"{folder}/meta.mat": meta.getvalue(), f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth}


@pytest.fixture
def archives(tmp_path) -> Archives:
    names = [torchvision_imagenet.ARCHIVE_META[part][0] for part in ("train", "val", "devkit")]
    contents = [tar_of(train_members()), tar_of(val_members()), tar_of(devkit_members(), "w:gz")]
    folder = tmp_path / "official"
    folder.mkdir()
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    return Archives(*(folder / name for name in names))


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.JPEG")}


def test_the_folders_are_those_that_torchvision_makes(archives, tmp_path, monkeypatch):
    manifest = write_imagenet(*archives, tmp_path / "data")
    assert manifest["classes"] == CLASSES
    assert (manifest["num_train"], manifest["num_val"]) == (9, 5)
    for part, (name, _) in list(torchvision_imagenet.ARCHIVE_META.items()):
        monkeypatch.setitem(torchvision_imagenet.ARCHIVE_META, part, (name, None))
    folder = archives.train.parent
    torchvision_imagenet.parse_devkit_archive(folder)
    torchvision_imagenet.parse_train_archive(folder)
    torchvision_imagenet.parse_val_archive(folder)
    assert tree(tmp_path / "data") == tree(folder)
    assert len(tree(folder)) == 14


def test_validation_images_are_in_the_folders_of_their_classes(archives, tmp_path):
    write_imagenet(*archives, tmp_path / "data")
    for number, synset in enumerate(VAL_IDS, 1):
        image = tmp_path / "data" / "val" / SYNSETS[synset][0] / f"ILSVRC2012_val_{number:08}.JPEG"
        assert image.read_bytes() == jpeg(100 + number)


def test_grey_and_cmyk_images_are_read_as_rgb(archives, tmp_path):
    write_imagenet(*archives, tmp_path / "data")
    files = {Image.open(path).mode for path in (tmp_path / "data").rglob("*.JPEG")}
    assert files == set(MODES)
    for split, count in (("train", 9), ("val", 5)):
        images = ImageFolder(tmp_path / "data" / split)
        assert images.classes == list(CLASSES)
        assert [(image.mode, image.size) for image, _ in images] == [("RGB", (12, 8))] * count


def test_a_killed_run_resumes_with_its_class(archives, tmp_path, monkeypatch):
    write_imagenet(*archives, tmp_path / "expected")
    copy = TarArchive.copy
    copied = []

    def killed_at(name: str | None):
        def copy_until(archive, member, path) -> None:
            if member.name == name:
                raise KeyboardInterrupt
            copied.append(member.name)
            copy(archive, member, path)

        monkeypatch.setattr(TarArchive, "copy", copy_until)

    for name in ("n00000002_1.JPEG", "ILSVRC2012_val_00000005.JPEG"):
        killed_at(name)
        with pytest.raises(KeyboardInterrupt):
            write_imagenet(*archives, tmp_path / "data")
        assert not (tmp_path / "data").exists()
    killed_at(None)
    write_imagenet(*archives, tmp_path / "data")
    again = {name for name in copied if copied.count(name) > 1}
    assert again == {"n00000002_0.JPEG", "ILSVRC2012_val_00000001.JPEG"}
    assert tree(tmp_path / "data") == tree(tmp_path / "expected")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["manifest.json", "train", "val"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "expected", "official"]


def test_a_second_run_changes_nothing_and_other_archives_are_refused(archives, tmp_path, monkeypatch):
    first = write_imagenet(*archives, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(TarArchive, "copy", None)
        assert write_imagenet(*archives, tmp_path / "data") == first
    archives.val.write_bytes(tar_of(val_members() | {"ILSVRC2012_val_00000006.JPEG": bytes(20_000)}))
    with pytest.raises(UserError, match=r"holds a data set with val_tar_bytes=\d+, not \d+: name another folder"):
        write_imagenet(*archives, tmp_path / "data")


def test_too_little_space_is_said_before_anything_is_unpacked(archives, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(UserError, match=r"GB free, .* GB are needed: make room or name another"):
        write_imagenet(*archives, tmp_path / "data")
    assert not tree(tmp_path / "data.unfinished")
    assert "GB to unpack" in capsys.readouterr().out


def refuse(archives: Archives, root: Path, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        write_imagenet(*archives, root)
    assert "\n" not in str(error.value)
    assert not root.exists()


@pytest.mark.parametrize("part", Archives._fields)
def test_an_archive_that_is_missing_foreign_or_truncated_is_named(archives, tmp_path, part):
    path = getattr(archives, part)
    content = path.read_bytes()
    path.unlink()
    refuse(archives, tmp_path / "data", f"no archive at .*{path.name}: expected one of ImageNet's official files")
    path.write_bytes(b"foreign" * 1000)
    refuse(archives, tmp_path / "data", f"{path.name} is damaged or no tar|is no ILSVRC2012_devkit_t12.tar.gz")
    for share in (0.1, 0.3, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        refuse(archives, tmp_path / "data", r"is damaged|lacks n0000000|expected 5, as|is no ILSVRC2012_devkit")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"n00000002.tar": None}, "lacks n00000002: expected the devkit's 3 classes"),
        ({"n00000004.tar": class_tar("n00000004")}, "has, other than the devkit, n00000004: expected"),
        ({"n00000002.tar": b"foreign" * 100}, "n00000002.tar is damaged or no tar file"),
        ({"n00000002.tar": class_tar("n00000002")[:700]}, "n00000002.tar is damaged or no tar file"),
        ({"notes.txt": b"hello"}, "holds 'notes.txt': expected files whose names match"),
        ({"n00000002.tar": tar_of({"deep/n00000002_1.JPEG": b"x"})}, "holds 'deep/n00000002_1.JPEG': expected"),
    ],
)
def test_training_classes_in_another_layout_are_named(archives, tmp_path, members, said):
    members = {name: content for name, content in (train_members() | members).items() if content is not None}
    archives.train.write_bytes(tar_of(members))
    refuse(archives, tmp_path / "data", said)


def test_as_many_validation_images_as_classes_for_them(archives, tmp_path):
    archives.val.write_bytes(tar_of(dict(list(val_members().items())[1:])))
    refuse(archives, tmp_path / "data", "has 4 images: expected 5, as the devkit has classes for")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (devkit_members([2, 1, 2, 1, 2]), "has no validation image of n00000002: expected some of each class"),
        (devkit_members([2, 1, 3, 3, 77]), r"is no ILSVRC2012_devkit_t12.tar.gz"),
        ({"ILSVRC2012_devkit_t12/readme.txt": b""}, r"is no ILSVRC2012_devkit_t12.tar.gz: it has no .*meta\.mat"),
        (devkit_members() | {META: b"foreign"}, r"is no ILSVRC2012_devkit_t12.tar.gz"),
    ],
)
def test_a_devkit_that_is_none_is_named(archives, tmp_path, members, said):
    archives.devkit.write_bytes(tar_of(members, "w:gz"))
    refuse(archives, tmp_path / "data", said)


def test_names_as_tar_writes_them_for_a_folder_are_read(archives, tmp_path):
    write_imagenet(*archives, tmp_path / "expected")
    archives.train.write_bytes(tar_of({f"./{name}": content for name, content in train_members().items()}))
    archives.val.write_bytes(tar_of({f"./{name}": content for name, content in val_members().items()}))
    write_imagenet(*archives, tmp_path / "data")
    assert tree(tmp_path / "data") == tree(tmp_path / "expected")
