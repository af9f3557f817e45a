"""What is said and drawn about small folders of maps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.datasets.digits import write_data_set
from misc.datasets.image_folder import ImageFolder
from saliency_maps.analysis.inspection_sheet import GAP, TILE
from saliency_maps.analysis.sheets import SEAM
from saliency_maps.analysis.text import LINE
from saliency_maps.map_folder import (
    MANIFEST,
    SETTINGS,
    MapFolder,
    dataset_identity,
    relative_image_names,
    write_json,
    write_map,
)
from scripts.inspect_maps import main

TRIPLE = 3 * TILE + 2 * SEAM


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Twelve images, their maps and a manifest."""
    monkeypatch.chdir(tmp_path)
    write_data_set("digits", num_train=10, num_val=12)
    rng = np.random.default_rng(0)
    images = ImageFolder("digits/val")
    names = relative_image_names(images.root, (path for path, _ in images.samples))
    for name in names:
        write_map(Path("maps", name).with_suffix(".npy"), rng.random((7, 7)))
    settings = {
        "model": "resnet18",
        "saliency_type": "XGradCAM",
        "eigen_smooth": True,
        "layers": ["layer3", "layer4"],
        "map_size": [7, 7],
        "dataset_sha256": dataset_identity("digits/val", names),
    }
    write_json(Path("maps", MANIFEST), {"settings": settings})
    return tmp_path


def printed(capsys, *arguments: str) -> dict[str, str]:
    """Return what is printed, by heading; the sections' titles are left out."""
    main(["maps", *arguments])
    lines = (line.strip().partition("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    return {heading: text.strip() for heading, _, text in lines}


def test_whole_maps_are_reported_and_drawn(workspace, capsys):
    found = printed(capsys, "--input", "digits/val", "--images", "5")
    assert found["method"] == "XGradCAM, eigen_smooth"
    assert found["layers"] == "layer3, layer4"
    assert (found["model"], found["size"], found["maps"]) == ("resnet18", "7 x 7", "12")
    assert (found["images"], found["images with a map"]) == ("12", "12 (100.0 %)")
    assert "state" not in found
    defects = ("images without", "maps without image", "uniform maps", "damaged maps")
    assert [found[heading] for heading in defects] == ["0"] * 4
    maps = MapFolder("maps")
    values = np.stack([maps.read(name) for name in maps.names])
    assert found["mean"] == f"{values.mean():.3f}"
    assert found["standard deviation"] == f"{values.std():.3f}"
    assert float(found["entropy"].split()[0]) < 1
    sheet = Image.open("maps/sheet.png")
    assert sheet.width == 2 * (TRIPLE + GAP) + GAP
    assert sheet.height > 3 * (LINE + TILE + GAP)


def test_gaps_and_defects_are_named(workspace, capsys):
    Path("maps/0/00000.npy").unlink()
    write_map(Path("maps/1/00001.npy"), np.full((7, 7), 0.5))
    Path("maps/2/00002.npy").write_bytes(b"no map")
    write_map(Path("maps/3/elsewhere.npy"), np.eye(7))
    found = printed(capsys, "--input", "digits/val", "--output", "sheets/sheet.png")
    assert found["images with a map"] == "11 (91.7 %)"
    assert found["images without"] == "1: 0/00000.png"
    assert found["maps without image"] == "1: 3/elsewhere.npy"
    assert found["uniform maps"] == "1: 1/00001.npy"
    assert found["damaged maps"] == "1: 2/00002.npy"
    assert Path("sheets/sheet.png").is_file()


def test_long_lists_are_cut(workspace, capsys):
    for path in sorted(Path("maps").rglob("*.npy"))[:5]:
        path.unlink()
    found = printed(capsys, "--input", "digits/val")
    assert found["images without"].startswith("5: 0/00000.png, ")
    assert found["images without"].endswith(", ...")
    assert found["images without"].count(".png") == 3


def test_images_that_the_maps_were_not_made_for_are_noticed(workspace, capsys):
    Image.new("RGB", (64, 64)).save("digits/val/0/new.png")
    found = printed(capsys, "--input", "digits/val")
    assert found["images"] == "13, not the ones that the maps were made for"


def test_maps_alone(workspace, capsys):
    found = printed(capsys)
    assert "images" not in found
    sheet = Image.open("maps/sheet.png")
    assert sheet.width == 6 * (TILE + GAP) + GAP


def test_an_unfinished_run_is_inspected_by_its_settings(workspace, capsys):
    Path("maps", MANIFEST).rename(Path("maps", SETTINGS))
    write_json(Path("maps", SETTINGS), {"saliency_type": "FullGrad", "layers": [f"layer{i}" for i in range(9)]})
    found = printed(capsys)
    assert found["state"].startswith("unfinished")
    assert found["method"] == "FullGrad"
    assert found["layers"] == "9: layer0, layer1, layer2, ..."
    assert found["model"] == "unknown"


def test_equal_arguments_give_equal_sheets(workspace, capsys):
    sheets = []
    for seed in ("0", "0", "1"):
        printed(capsys, "--input", "digits/val", "--images", "3", "--seed", seed)
        sheets.append(Path("maps/sheet.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere has no manifest.json"),
        (["empty"], "empty holds no maps"),
        (["maps", "--input", "nowhere"], "no data set at"),
        (
            ["maps", "--input", "others"],
            "none of 1 images has a map in maps: expected 7/x.npy; the nearest there is '7/",
        ),
        (["maps", "--images", "0"], "--images is 0: expected 1 or more"),
        (["maps", "--output", "sheet.jpg"], "--output is sheet.jpg: expected a file that ends in .png"),
        (["broken"], "1.npy is not a saliency map"),
    ],
)
def test_mistakes_are_named_in_one_line(workspace, capsys, arguments, said):
    for folder in ("empty", "broken"):
        write_json(Path(folder, MANIFEST), {"settings": {}})
    Path("broken/cat").mkdir()
    Path("broken/cat/1.npy").write_bytes(b"no map")
    Path("others/7").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save("others/7/x.png")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(Path().rglob("sheet.*"))
