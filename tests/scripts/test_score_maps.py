"""Score of small data sets against masks and boxes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.datasets.digits import write_data_set
from saliency_maps.map_folder import write_map, write_pack
from scripts.score_maps import main

WIDTH, HEIGHT = 8, 6


@pytest.fixture
def digits(tmp_path, monkeypatch) -> Path:
    """Twelve val images with their masks as maps."""
    monkeypatch.chdir(tmp_path)
    write_data_set("digits", num_train=10, num_val=12)
    for path in Path("digits/val_masks").glob("*/*.png"):
        write_map(Path("maps", path.parent.name, f"{path.stem}.npy"), np.asarray(Image.open(path)) / 255)
    return tmp_path


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    """Four images in the layout of Tiny ImageNet's train/, and maps with the maximum in the left upper corner."""
    monkeypatch.chdir(tmp_path)
    saliency = np.zeros((HEIGHT, WIDTH), np.float32)
    saliency[0, 0] = 1
    for wnid in ("n01", "n02"):
        for number in range(2):
            path = Path("train", wnid, "images", f"{wnid}_{number}.JPEG")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT)).save(path)
            write_map(Path("maps", wnid, "images", f"{wnid}_{number}.npy"), saliency)
    Path("train/n01/n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t3\t2\nn01_1.JPEG\t0\t0\t7\t5\n")
    Path("train/n02/n02_boxes.txt").write_text("n02_0.JPEG\t4\t3\t7\t5\n")
    return tmp_path


def table(printed: str) -> dict[str, str]:
    """Return the printed table, by heading."""
    return {heading.strip(): text.strip() for heading, text in (line.rsplit("  ", 1) for line in printed.splitlines())}


DIGITS = ["maps", "--input", "digits/val", "--masks", "digits/val_masks"]
BOXES = ["maps", "--input", "train", "--boxes", "train"]


def test_maps_that_are_the_masks_are_all_on_the_objects(digits, capsys):
    main(DIGITS)
    found = table(capsys.readouterr().out)
    areas = [np.asarray(Image.open(path)).mean() / 255 for path in Path("digits/val_masks").glob("*/*.png")]
    assert found == {
        "images scored": "12",
        "images without a map": "0",
        "images without a mask": "0",
        "mass inside the mask, relative to a uniform map": f"{np.mean(1 / np.array(areas)):.2f}",
        "pointing game: maximum inside the mask": "100.0 %",
        "chance: a random point": f"{100 * np.mean(areas):.1f} %",
    }


def test_images_without_a_map_or_a_mask_are_counted(digits, capsys):
    for path in sorted(Path("maps").rglob("*.npy"))[:2]:
        path.unlink()
    sorted(Path("digits/val_masks").rglob("*.png"))[-1].unlink()
    main(DIGITS)
    found = table(capsys.readouterr().out)
    counts = [found[heading] for heading in ("images scored", "images without a map", "images without a mask")]
    assert counts == ["9", "2", "1"]


def test_boxes_by_hand(photographs, capsys):
    main(BOXES)
    assert table(capsys.readouterr().out) == {
        "images scored": "3",
        "images without a map": "0",
        "images without a box": "1",
        "mass inside the box, relative to a uniform map": f"{(4 + 1 + 0) / 3:.2f}",
        "pointing game: maximum inside the box": "66.7 %",
        "chance: a random point": "50.0 %",
    }


def test_the_boxes_of_val(photographs, capsys):
    Path("val_annotations.txt").write_text("n01_0.JPEG\tn01\t0\t0\t3\t2\nelsewhere.JPEG\tn01\t0\t0\t3\t2\n")
    main([*BOXES[:-1], "val_annotations.txt"])
    found = table(capsys.readouterr().out)
    assert (found["images scored"], found["images without a box"]) == ("1", "3")
    assert found["mass inside the box, relative to a uniform map"] == "4.00"


def said(capsys, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_what_does_not_match_is_named(photographs, capsys):
    assert "no data set at" in said(capsys, [BOXES[0], "--input", "nowhere", *BOXES[3:]])
    assert "/nowhere: expected a folder of maps" in said(capsys, ["nowhere", *BOXES[1:]])
    Path("val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t3\t2\n")
    error = said(capsys, [*BOXES[:-1], "val_annotations.txt"])
    assert "none of 4 images has a box in val_annotations.txt: expected n01_0.JPEG" in error
    assert "'val_0.JPEG'" in error
    assert "no masks at" in said(capsys, [*BOXES[:-2], "--masks", "nowhere"])


def test_maps_and_boxes_of_different_images_are_named(photographs, capsys):
    for name in ("n01_0", "n01_1", "n02_0"):
        next(Path("maps").rglob(f"{name}.npy")).unlink()
    error = said(capsys, BOXES)
    assert "no image in train has both" in error
    assert "n02/images/n02_1.JPEG" in error


def test_a_box_beyond_its_image_is_named_with_it(photographs, capsys):
    Path("train/n02/n02_boxes.txt").write_text(f"n02_0.JPEG\t0\t0\t{WIDTH}\t1\n")
    error = said(capsys, BOXES)
    assert "n02_0.JPEG: the box 0 0 8 1 goes beyond an image of 8 x 6" in error


def test_a_damaged_map_is_named(digits, capsys):
    Path("maps/3/00003.npy").write_bytes(b"no map")
    assert "00003.npy is not a saliency map" in said(capsys, DIGITS)


def test_packed_maps_score_the_same(digits, capsys):
    main(DIGITS)
    expected = capsys.readouterr().out
    for folder in sorted(Path("maps").iterdir()):
        write_pack(Path("maps"), folder.name, sorted(f"{folder.name}/{path.name}" for path in folder.iterdir()))
    assert Path("maps/3.npy").is_file() and not Path("maps/3").exists()
    main(DIGITS)
    assert capsys.readouterr().out == expected
