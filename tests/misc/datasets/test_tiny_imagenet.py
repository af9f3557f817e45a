"""Tiny ImageNet from a miniature of its archive that is made here."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.datasets.image_folder import ImageFolder
from misc.datasets.tiny_imagenet import MAX_IMAGE_BYTES, write_tiny_imagenet
from misc.errors import UserError
from saliency_maps.analysis.objects import Box, read_boxes

TOP = "tiny-imagenet-200"
CAT, DOG, FOX = WNIDS = ["n00000003", "n00000001", "n00000002"]  # wnids.txt is not sorted
NUM_TRAIN = 4
VAL_OF = {"val_0.JPEG": DOG, "val_1.JPEG": CAT, "val_2.JPEG": FOX, "val_3.JPEG": CAT}


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if number % 2 else "RGB", (64, 64), number).save(buffer, "JPEG")
    return buffer.getvalue()


def miniature() -> dict[str, bytes]:
    """Return the content of each member of an archive in the official layout."""
    members = {
        "wnids.txt": "\n".join(WNIDS),
        "words.txt": f"{CAT}\tcat, true cat\n{DOG}\tdog\nn09999999\tnothing here\n",
        "val/val_annotations.txt": "".join(f"{name}\t{wnid}\t1\t2\t30\t4{name[4]}\n" for name, wnid in VAL_OF.items()),
        "test/images/test_0.JPEG": image(200),
    }
    for place, wnid in enumerate(WNIDS):
        names = [f"{wnid}_{number}.JPEG" for number in range(NUM_TRAIN)]
        members |= {f"train/{wnid}/images/{name}": image(10 * place + int(name[-6])) for name in names}
        members[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(f"{name}\t0\t{place}\t63\t{name[-6]}9\n" for name in names)
    members |= {f"val/images/{name}": image(100 + int(name[4])) for name in VAL_OF}
    return {f"{TOP}/{name}": text.encode() if isinstance(text, str) else text for name, text in members.items()}


def write_zip(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tree(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def archive(tmp_path) -> Path:
    return write_zip(tmp_path / "tiny.zip", miniature())


def test_validation_images_get_their_labels_and_all_bytes_stay(archive, tmp_path):
    root = tmp_path / "data"
    manifest = write_tiny_imagenet(archive, root)
    assert (manifest["num_train"], manifest["num_val"]) == (12, 4)
    assert manifest["classes"] == {DOG: "dog", FOX: "", CAT: "cat, true cat"}
    members = miniature()
    val = ImageFolder(root / "val")
    assert val.classes == ImageFolder(root / "train").classes == sorted(WNIDS)
    assert {Path(path).name: val.classes[label] for path, label in val.samples} == VAL_OF
    written = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.JPEG")}
    sources = {f"val/{wnid}/{name}": f"val/images/{name}" for name, wnid in VAL_OF.items()}
    for wnid in WNIDS:
        sources |= {f"train/{wnid}/{wnid}_{n}.JPEG": f"train/{wnid}/images/{wnid}_{n}.JPEG" for n in range(NUM_TRAIN)}
    assert written == {path: members[f"{TOP}/{source}"] for path, source in sources.items()}


def test_boxes_are_kept(archive, tmp_path):
    write_tiny_imagenet(archive, tmp_path / "data")
    train, val = read_boxes(tmp_path / "data" / "train_boxes"), read_boxes(tmp_path / "data" / "val_boxes")
    assert len(train) == 12
    assert train[f"{DOG}_2.JPEG"] == [Box(0, 1, 63, 29)]
    assert val == {name: [Box(1, 2, 30, 40 + int(name[4]))] for name in VAL_OF}


def test_two_boxes_of_one_image_are_kept(tmp_path):
    members = miniature()
    members[f"{TOP}/val/val_annotations.txt"] += f"val_0.JPEG\t{DOG}\t5\t6\t7\t8\n".encode()
    manifest = write_tiny_imagenet(write_zip(tmp_path / "two.zip", members), tmp_path / "data")
    assert manifest["num_val"] == 4
    assert read_boxes(tmp_path / "data" / "val_boxes")["val_0.JPEG"] == [Box(1, 2, 30, 40), Box(5, 6, 7, 8)]


@pytest.mark.parametrize(("classes", "chosen"), [(1, [CAT]), (2, [CAT, DOG]), (f"{FOX}\n{DOG}\n", [DOG, FOX])])
def test_some_of_the_classes(archive, tmp_path, classes, chosen):
    if isinstance(classes, str):
        (tmp_path / "classes.txt").write_text(classes)
        classes = tmp_path / "classes.txt"
    root = tmp_path / "data"
    manifest = write_tiny_imagenet(archive, root, classes)
    num_val = sum(wnid in chosen for wnid in VAL_OF.values())
    assert (manifest["num_train"], manifest["num_val"]) == (NUM_TRAIN * len(chosen), num_val)
    assert sorted(manifest["classes"]) == sorted(chosen)
    for split in ("train", "val"):
        assert sorted(path.name for path in (root / split).iterdir()) == sorted(chosen)
    assert len(read_boxes(root / "train_boxes")) == NUM_TRAIN * len(chosen)
    assert len(read_boxes(root / "val_boxes")) == num_val


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (0, "--classes 0: .* has 1 to 3"),
        (4, "--classes 4: .* has 1 to 3"),
        ("n00000001 n00000004", "names 'n00000004', which .* lacks; the nearest there is 'n0000000"),
        ("", "is empty: expected a wnid on each line"),
        (None, "is neither a number nor a file of wnids"),
    ],
)
def test_classes_that_are_not_there(archive, tmp_path, classes, said):
    path = tmp_path / "classes.txt"
    if isinstance(classes, str):
        path.write_text(classes)
    with pytest.raises(UserError, match=said):
        write_tiny_imagenet(archive, tmp_path / "data", classes if isinstance(classes, int) else path)
    assert not (tmp_path / "data").exists()


def test_a_second_run_changes_nothing(archive, tmp_path):
    root = tmp_path / "data"
    first = write_tiny_imagenet(archive, root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_tiny_imagenet(archive, root) == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times


def test_another_data_set_is_refused(archive, tmp_path):
    write_tiny_imagenet(archive, tmp_path / "data", 2)
    with pytest.raises(UserError, match=r"holds a data set with (other )?classes"):
        write_tiny_imagenet(archive, tmp_path / "data", 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        write_tiny_imagenet(archive, tmp_path / "full")


def test_a_killed_run_leaves_no_data_set_and_the_next_one_makes_it_whole(archive, tmp_path, monkeypatch):
    write_tiny_imagenet(archive, tmp_path / "expected")
    write_bytes = Path.write_bytes

    def killed(path: Path, content: bytes) -> None:
        write_bytes(path, content[:100])
        if path.parent.name == DOG:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", killed)
        write_tiny_imagenet(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    write_tiny_imagenet(archive, tmp_path / "data")
    assert tree(tmp_path / "data") == tree(tmp_path / "expected")


def refuse(path: Path, root: Path, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        write_tiny_imagenet(path, root)
    assert "\n" not in str(error.value)
    assert not root.exists()


def test_a_file_that_is_no_archive_is_named(tmp_path):
    refuse(tmp_path / "no.zip", tmp_path / "data", "no archive at .*no.zip: expected Tiny ImageNet's zip file")
    refuse(tmp_path, tmp_path / "data", "is damaged or no zip file")
    (tmp_path / "text.zip").write_text("not a zip file")
    refuse(tmp_path / "text.zip", tmp_path / "data", "is damaged or no zip file")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wnids.txt": None}, "has no tiny-imagenet-200/wnids.txt: expected Tiny ImageNet's official layout"),
        ({"wnids.txt": b"../../etc"}, r"wnids.txt in .* has '../../etc': expected names as n01629819"),
        ({"words.txt": b"\xff"}, "words.txt in .* is no text"),
        ({"wnids.txt": "\n".join([*WNIDS, "n00000004"]).encode()}, "has no images of n00000004 in train/"),
        ({f"train/{DOG}/{DOG}_boxes.txt": None}, f"has no tiny-imagenet-200/train/{DOG}/{DOG}_boxes.txt"),
        ({"val/images/val_2.JPEG": None}, f"has no images of {FOX} in val/"),
        ({"val/images/val_9.JPEG": image(1)}, "has no class of val_9.JPEG"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn00000001\n"}, "expected name, class and box"),
        ({"val/images/val_2.JPEG": bytes(MAX_IMAGE_BYTES + 1)}, "has 1,000,001 bytes: expected at most 1,000,000"),
    ],
)
def test_another_layout_is_named(tmp_path, changes, said):
    members = miniature() | {f"{TOP}/{name}": content for name, content in changes.items()}
    path = write_zip(tmp_path / "tiny.zip", {name: content for name, content in members.items() if content is not None})
    refuse(path, tmp_path / "data", said)


def test_a_damaged_image_is_named(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[content.index(miniature()[f"{TOP}/val/images/val_1.JPEG"]) + 300] ^= 1
    archive.write_bytes(content)
    refuse(archive, tmp_path / "data", "val/images/val_1.JPEG in .* is damaged .*Bad CRC")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_named(archive, tmp_path, share):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    refuse(archive, tmp_path / "data", "is damaged or no zip file .*: fetch it again")


def test_damage_anywhere_is_one_line_or_does_no_harm(archive, tmp_path):
    content = archive.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            write_tiny_imagenet(tmp_path / "damaged.zip", tmp_path / f"data{place}")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30


@pytest.mark.parametrize("name", [f"{TOP}/val/images//outside.JPEG", f"{TOP}/train/{DOG}/images/outside/{DOG}_9.JPEG"])
def test_a_member_of_another_name_is_not_written(tmp_path, name):
    path = write_zip(tmp_path / "tiny.zip", miniature())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, image(0))
    manifest = write_tiny_imagenet(path, tmp_path / "data")
    assert (manifest["num_train"], manifest["num_val"]) == (12, 4)
    assert not list(tmp_path.rglob("outside*"))
