"""Photographs are gathered from any folders; what is small, broken or of a test set stays out."""

import json
from pathlib import Path

import pytest
from PIL import Image

from misc.datasets.image_folder import ImageFolder
from misc.datasets.photographs import write_photographs
from misc.errors import UserError
from scripts import prepare_dataset


@pytest.fixture
def folders(tmp_path):
    """Two sources and a validation folder."""
    images = {
        "dogs/images/deep/a.jpg": (200, 300),
        "dogs/images/b.PNG": (250, 250),
        "dogs/small.jpg": (199, 400),
        "dogs/ILSVRC2012_val_00000293.JPEG": (300, 300),
        "flowers/c.jpeg": (400, 201),
        "val/n01443537/d.jpg": (227, 227),
    }
    for name, size in images.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(tmp_path / name)
    (tmp_path / "flowers/broken.jpg").write_bytes((tmp_path / "flowers/c.jpeg").read_bytes()[:300])
    (tmp_path / "flowers/README.md").write_text("not an image")
    return tmp_path


def test_what_serves_is_copied_and_the_rest_is_counted(folders, capsys):
    root = folders / "photographs"
    train = [str(folders / name) for name in ("dogs", "flowers")]
    prepare_dataset.main(["photographs", "--train", *train, "--val", str(folders / "val"), "--output", str(root)])
    copied = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.name != "manifest.json")
    wanted = ["train/dogs/images/b.PNG", "train/dogs/images/deep/a.jpg", "train/flowers/c.jpeg", "val/n01443537/d.jpg"]
    assert copied == wanted
    assert (root / wanted[1]).read_bytes() == (folders / "dogs/images/deep/a.jpg").read_bytes()
    counts = json.loads((root / "manifest.json").read_text())["sources"]
    assert counts["dogs"] == {"kept": 2, "of ImageNet's validation set": 1, "small": 1}
    assert counts["flowers"] == {"kept": 1, "unreadable": 1}
    printed = capsys.readouterr().out
    assert "flowers: 1 kept, 1 unreadable\n" in printed
    assert "3 training and 1 validation images, 1 classes" in printed
    assert len(ImageFolder(root / "train", labelled=False)) == 3


def images_in(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.*") if path.name != "manifest.json")


def test_a_part_is_always_the_same(folders):
    for number in range(30):
        Image.new("RGB", (200, 200), (number, 0, 0)).save(folders / f"dogs/{number:02}.png")
    sources, val = [folders / "dogs", folders / "flowers"], folders / "val"
    first = write_photographs(sources, val, folders / "first", at_most=10)
    assert first["num_train"] == 10 == sum(each["kept"] for each in first["sources"].values())
    assert sum(each.get("not drawn", 0) for each in first["sources"].values()) == 23
    write_photographs(sources[::-1], val, folders / "second", at_most=10)
    assert images_in(folders / "first") == images_in(folders / "second")
    assert write_photographs(sources, val, folders / "all", at_most=99)["num_train"] == 33
    with pytest.raises(UserError, match="at_most"):  # a part does not pass for the whole
        write_photographs(sources, val, folders / "first")


def test_sources_may_lie_in_one_another_and_at_relative_paths(folders, monkeypatch):
    monkeypatch.chdir(folders / "dogs")
    write_photographs([Path("."), Path("images"), Path("../flowers")], folders / "val", folders / "photographs")
    found = [path.as_posix() for path in images_in(folders / "photographs")]
    deep = ["train/dogs/images/b.PNG", "train/dogs/images/deep/a.jpg", "train/flowers/c.jpeg", "train/images/b.PNG"]
    assert found == [*deep, "train/images/deep/a.jpg", "val/n01443537/d.jpg"]


def test_the_number_of_images_comes_from_the_command_line(folders, capsys):
    flags = ["photographs", "--train", str(folders / "dogs"), "--val", str(folders / "val")]
    flags += ["--output", str(folders / "photographs"), "--at_most"]
    with pytest.raises(SystemExit):
        prepare_dataset.main([*flags, "0"])
    assert "--at_most is 0: expected 1 or more" in capsys.readouterr().err
    prepare_dataset.main([*flags, "1"])
    assert "1 training and 1 validation images" in capsys.readouterr().out


def test_mistakes_are_named(folders):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        write_photographs([folders / "nowhere"], folders / "val", folders / "photographs")
    with pytest.raises(UserError, match=r"val lie in .*, whose images would be trained on"):
        write_photographs([folders], folders / "val", folders / "photographs")
    (folders / "more" / "dogs").mkdir(parents=True)
    with pytest.raises(UserError, match="several folders are called dogs"):
        write_photographs([folders / "dogs", folders / "more/dogs"], folders / "val", folders / "photographs")
    with pytest.raises(UserError, match=r"n01443537 is a part of the validation images in .*val, and would be trained"):
        write_photographs([folders / "val/n01443537"], folders / "val", folders / "photographs")
    with pytest.raises(UserError, match=r"dogs/new lies in .*dogs, whose images are copied to it"):
        write_photographs([folders / "dogs"], folders / "val", folders / "dogs/new")
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match=r"no validation image in .*empty: expected a folder of images per class"):
        write_photographs([folders / "flowers"], folders / "empty", folders / "photographs")
    with pytest.raises(UserError, match=r"no image to train on in .*empty: found none"):
        write_photographs([folders / "empty"], folders / "val", folders / "photographs")
    Image.new("RGB", (64, 64)).save(folders / "empty/icon.png")
    with pytest.raises(UserError, match=r"in .*empty: found 1 small"):
        write_photographs([folders / "empty"], folders / "val", folders / "photographs")
    assert not list(folders.glob("photographs*")) and not list(folders.glob("dogs/new*"))
