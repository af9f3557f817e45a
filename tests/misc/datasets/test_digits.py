import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.datasets.digits import REGIONS, compose, split_digits, split_folder, write_data_set
from misc.errors import UserError


def tree_digest(root: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            sha.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return sha.hexdigest()


def test_train_and_val_share_no_digit():
    digits = split_digits(seed=0)
    assert not set(digits["train"]) & set(digits["val"])
    assert sorted([*digits["train"], *digits["val"]]) == list(range(1797))
    used = {split: {c.digit_index for c in compose(split, 300, seed=0)} for split in REGIONS}
    assert used["train"] <= set(digits["train"]) and used["val"] <= set(digits["val"])


def test_train_and_val_share_no_photograph_column():
    columns = {split: [set(), set()] for split in REGIONS}
    for split, seen in columns.items():
        for composition in compose(split, 500, seed=0):
            left, _, right, _ = composition.photo_box
            seen[composition.photo_index].update(range(left, right))
    for train, val in zip(columns["train"], columns["val"], strict=True):
        assert train and val and not train & val


def test_mask_marks_the_pixels_that_the_digit_changed():
    for composition in compose("val", 20, seed=0):
        assert composition.mask.any() and set(np.unique(composition.mask)) == {0, 255}
        inside = composition.pixels[composition.mask > 0].astype(float)
        assert inside.std(axis=0).max() < 60  # one colour, blended at the edges alone


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_data_set(tmp_path / name, num_train=20, num_val=20, seed=seed)
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")
    assert tree_digest(tmp_path / "a") != tree_digest(tmp_path / "c")


def test_every_val_image_has_its_mask(tmp_path):
    write_data_set(tmp_path, num_train=10, num_val=20)
    images = sorted(path.relative_to(tmp_path / "val") for path in (tmp_path / "val").rglob("*.png"))
    masks = sorted(path.relative_to(tmp_path / "val_masks") for path in (tmp_path / "val_masks").rglob("*.png"))
    assert images == masks and len(images) == 20
    assert Image.open(tmp_path / "val" / images[0]).size == (64, 64)


def test_another_data_set_is_not_overwritten(tmp_path):
    write_data_set(tmp_path, num_train=10, num_val=10)
    with pytest.raises(UserError, match="seed=0, not 1"):
        write_data_set(tmp_path, num_train=10, num_val=10, seed=1)
    (tmp_path / "other" / "train").mkdir(parents=True)
    (tmp_path / "other" / "train" / "mine.png").touch()
    with pytest.raises(UserError, match="holds other files"):
        write_data_set(tmp_path / "other")
    assert split_folder(str(tmp_path / "other"), "train") == str(tmp_path / "other" / "train")
    assert sorted(path.name for path in (tmp_path / "other").rglob("*")) == ["mine.png", "train"]


def test_an_interrupted_composition_leaves_no_data_set(tmp_path, monkeypatch):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("misc.datasets.digits._write", interrupted)
        write_data_set(tmp_path / "digits", num_train=10, num_val=10)
    assert not (tmp_path / "digits").exists()
    write_data_set(tmp_path / "digits", num_train=10, num_val=10)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_missing_data_set_is_composed_and_announced_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("misc.datasets.digits.write_data_set", partial(write_data_set, num_train=10, num_val=10))
    root = str(tmp_path / "digits")
    assert split_folder(root, "val") == f"{root}/val"
    assert "composing" in capsys.readouterr().out
    assert split_folder(root, "train") == f"{root}/train"
    assert capsys.readouterr().out == ""
