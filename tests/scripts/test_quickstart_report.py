"""The report on a small data set: its files, and inputs that are missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.datasets.digits import write_data_set
from misc.evaluation.codec_table import CodecPoint, write_points
from saliency_maps.map_folder import MANIFEST, write_json, write_map
from scripts.quickstart_report import main

FILES = ["index.html", "rate_accuracy.png", "rate_accuracy.svg", "results.csv", "saliency.png"]
STUDENT = {"images": 12, "top5": 99.0, "strings_kb": 0.05, "sent_kb": 0.06, "bpp_bytes": 0.1, "edge_parameters": 1000}
ORIGIN = {"weights": "w", "command": "c", "git_revision": "g", "seed": 0, "time": "s", "python": "p", "versions": {}}


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Twelve val images with their masks as maps, two runs and a codec file."""
    monkeypatch.chdir(tmp_path)
    write_data_set("digits", num_train=10, num_val=12)
    for path in Path("digits/val_masks").glob("*/*.png"):
        write_map(Path("maps", path.parent.name, f"{path.stem}.npy"), np.asarray(Image.open(path)) / 255)
    write_json(Path("maps", MANIFEST), {"command": "make the maps"})
    for name, top1 in (("phd", 80.0), ("sg", 81.0)):
        Path("runs", name).mkdir(parents=True)
        results = {
            "teacher": {"images": 12, "top1": 90.0, "top5": 100.0},
            "student": {**STUDENT, "top1": top1},
            **ORIGIN,
        }
        Path("runs", name, "test.json").write_text(json.dumps(results))
    sizes = ((600.0, 30.0), (900.0, 85.0))
    points = [CodecPoint("JPEG", 1, size, size / 1024, 1.0, top1, 100.0, 90.0, 12, 2.0, 3.0) for size, top1 in sizes]
    write_points("codecs.csv", points)
    return tmp_path


ARGUMENTS = {"--codecs": "codecs.csv", "--maps": "maps", "--dataset": "digits", "--output": "report"}


def arguments(**changed: str) -> list[str]:
    given = {**ARGUMENTS, **{f"--{name}": value for name, value in changed.items()}}
    return ["--run_dir", "runs/phd", "--run_dir", "runs/sg", *(word for pair in given.items() for word in pair)]


def test_a_report_is_written_and_summed_up(workspace, capsys):
    main(arguments())
    assert sorted(path.name for path in (workspace / "report").iterdir()) == FILES
    printed = capsys.readouterr().out
    assert all(str(Path("report", name)) in printed for name in FILES)
    assert "81.00 %" in printed
    assert "100.0 % of the maps have their maximum on the digit" in printed  # the maps are the masks
    plot = (workspace / "report" / "rate_accuracy.svg").read_text()
    assert all(f">{name}</text>" in plot for name in ("phd", "sg", "JPEG", "teacher, whole image"))
    page = (workspace / "report" / "index.html").read_text()
    assert "make the maps" in page
    assert "scripts/quickstart_report.py --run_dir runs/phd" in page


def test_equal_inputs_give_equal_files(workspace):
    main(arguments())
    first = {name: (workspace / "report" / name).read_bytes() for name in FILES}
    main(arguments())
    assert {name: (workspace / "report" / name).read_bytes() for name in FILES} == first


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"codecs": "nowhere.csv"}, "no codec file at nowhere.csv"),
        ({"maps": "nowhere"}, "12 of 12 maps are missing in nowhere"),
        ({"dataset": "nowhere"}, "no data set at"),
    ],
)
def test_what_is_missing_is_named_in_one_line(workspace, capsys, changed, said):
    with pytest.raises(SystemExit) as stop:
        main(arguments(**changed))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (workspace / "report").exists()


def test_a_missing_mask_is_named(workspace, capsys):
    next(Path("digits/val_masks").glob("3/*.png")).unlink()
    with pytest.raises(SystemExit):
        main(arguments())
    assert "val_masks/3/" in capsys.readouterr().err
