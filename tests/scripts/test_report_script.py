"""A report on rows and codecs that are made up here: what stands in its tables and on its page."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from misc.config.load import compose_config
from misc.datasets.digits import write_data_set
from misc.evaluation.codec_table import CodecPoint, write_points
from misc.evaluation.curves import Point
from misc.files import ROOT
from misc.sweeps.table import read_rows, recommended, students_of
from saliency_maps.analysis.sheets import SEAM
from saliency_maps.analysis.spending_sheet import COLUMNS, GAP, IMAGES, TILE
from scripts import report

TEACHER = 65.0


def row(method: str, setting: str, size: float, top1: float, seed: int = 0) -> dict:
    loss = round(TEACHER - top1, 3)
    facts = {"run": f"{method}-{setting}-{seed}", "method": method, "set": setting, "seed": seed, "images": 1500}
    return {**facts, "top1": top1, "predictive_loss": loss, "sent_bytes": size, "encode_ms": 4, "decode_ms": 6}


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    rows = [
        row("ours", "lmbda=1", 50, 60),
        row("ours", "lmbda=2", 100, 65, seed=0),
        row("ours", "lmbda=2", 100, 64, seed=1),
        row("Entropic Student", "lmbda=1", 100, 60),
        row("Entropic Student", "lmbda=2", 200, 64.5),
        {**row("ours", "lmbda=3", 0, 0), "images": "not run", "top1": "", "predictive_loss": "", "sent_bytes": ""},
    ]
    with open(tmp_path / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    points = [
        CodecPoint("JPEG", quality, size, 1.0, 1.0, top1, 90.0, TEACHER, 1500, 2.0, 3.0)
        for quality, size, top1 in ((1, 400, 50.0), (2, 800, 66.0))
    ]
    write_points(tmp_path / "codecs.csv", points)
    return tmp_path / "results.csv", tmp_path / "codecs.csv"


def test_tables_and_page(files, tmp_path, capsys):
    results, codecs = files
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page")])
    printed = capsys.readouterr().out.splitlines()
    lines = [[cell.strip() for cell in re.split(" {2,}", line.strip())] for line in printed]
    # Half the bytes at both ends, seeds averaged. JPEG by hand: 70.7 of 680 bytes in the middle.
    size = f"{50 * 2 ** (3 / 4.5):.0f}"  # two points below the teacher
    assert lines[3] == ["ours", "2", "50 to 100", "60.0 to 64.5", "100", size]
    assert lines[4] == ["Entropic Student", "2", "100 to 200", "60.0 to 64.5", "200", f"{100 * 2 ** (3 / 4.5):.0f}"]
    assert lines[5][0] == "JPEG" and float(lines[5][4]) == pytest.approx(400 * 2 ** (14.5 / 16), abs=0.5)
    assert lines[7:9] == [
        ["rate against", "Entropic Student", "JPEG"],
        ["ours", "-50 % (60.0-64.5)", "-90 % (60.0-64.5)"],
    ]
    # The student at 65 %: 4 + 6 ms and 100 bytes, 8 ms at 0.1 Mbit/s. JPEG: 2 + 3 ms and 400 * 2 ** (15 / 16) bytes.
    assert printed[12] == "At most 0.5 points of loss: ours-lmbda=2-0 (65.00 %, 0.00 points), ms"
    assert printed[17].split() == ["0.1", "Mbit/s,", "computed", "18.0", "66.3", "3.7"]
    summary = (tmp_path / "page" / "summary.md").read_text()
    assert f"| ours | 2 | 50 to 100 | 60.0 to 64.5 | 100 | {size} |\n" in summary
    assert "| ours | -50 % (60.0-64.5) | -90 % (60.0-64.5) |\n" in summary
    assert "of 1,500 images," in summary and "is about 1.2 points over images" in summary
    page = (tmp_path / "page" / "index.html").read_text()
    assert report.WEIGHTS not in summary + page
    assert "ours-lmbda=3-0" in page and "not run" in page and "65.00 %" in page
    assert (tmp_path / "page" / "rate_accuracy.svg").read_bytes().startswith(b"<?xml")


def test_weights_of_the_distortion_are_compared_where_they_were_run(files, tmp_path, capsys):
    results, codecs = files
    command = [str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page")]
    rows = read_rows(results)
    for seed in (0, 1, 2):
        rows.append({**row("first half", "lmbda=0.2", 60, 55, seed), "run": f"first-seed{seed}"})
        for lmbda, size, top1 in ((0.1, 100, 62), (0.2, 50, 60)):
            setting = f'lmbda={lmbda} weights_path="sweeps/s/first-seed{seed}/weights.safetensors"'
            rows.append(row(report.UNWEIGHTED, setting, size, top1 + 0.1 * seed))
            rows += [row("second half, XGradCAM", setting, size, top1 + 0.1 * seed + 1)]
    with open(results, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report.main(command)
    summary, html = ((tmp_path / "page" / name).read_text() for name in ("summary.md", "index.html"))
    assert "### Weights of the distortion\n\n|  | bytes, lmbda 0.1 |" in summary
    # Two points for twice the bytes, so that one point is worth the square root of two.
    cells = "100.0 | 63.10 ± 0.10 (3) | 50.0 | 61.10 ± 0.10 (3) | +1.00 ± 0.00 (3) | -29.3 ± 0.0 (3)"
    assert f"| second half, XGradCAM | {cells} |" in summary
    said = 'top-1 is higher with "second half, XGradCAM" (+1.0 to +1.0 points; bytes -29.3 to -29.3 %).'
    assert said in summary and said in capsys.readouterr().out
    assert "<h2>Weights of the distortion</h2>" in html and '<img src="weights.svg"' in html
    assert (tmp_path / "page" / "weights.svg").read_bytes().startswith(b"<?xml")
    curves = summary.partition("###")[0]
    assert "| ours |" in curves and "half" not in curves


def test_bytes_at_an_accuracy_say_why_there_are_none():
    curve = [Point(100, 60), Point(200, 64)]
    assert [report.size_at(curve, top1) for top1 in (59, 62, 65)] == ["at most 100", "141", "not reached"]


def test_the_spread_is_that_of_the_seeds(files):
    students = students_of(read_rows(files[0]))["ours"]
    assert [(student.seeds, student.spread) for student in students] == [(1, None), (2, pytest.approx(0.5**0.5))]


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (
            lambda text: text,
            ["--anchors", "ours", "Entropic"],
            "--anchors Entropic is no method .* did you mean 'Entropic Student'",
        ),
        (lambda text: text.replace("sent_bytes", "bytes"), [], "has no column sent_bytes"),
        (lambda text: text.replace(",60,5.0,", ",60,9.0,"), [], r"teachers of \[65.0, 69.0\] % top-1"),
        (lambda text: text.splitlines()[0] + "\n", [], "has no column run"),
        (lambda text: text, ["--runs", "/nowhere"], "/nowhere holds none of the table's runs"),
        (lambda text: text.replace(",1500,", ",100,", 1), [], r"students were tested on \[100, 1500\] images"),
        (lambda text: text.replace(",4,6", ",,"), [], "ours-lmbda=2-0 is not timed yet"),
        (
            lambda text: text.replace(",1500,", ",100,"),
            [],
            "on 1500 images, the students with one of .* on 100:",
        ),
    ],
)
def test_mistakes_are_named(files, tmp_path, capsys, change, flags, message):
    results, codecs = files
    results.write_text(change(results.read_text()))
    with pytest.raises(SystemExit):
        report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page"), *flags])
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "page").exists()


def test_the_smallest_student_of_little_loss_is_recommended(files):
    rows = read_rows(files[0])
    assert recommended(rows, 0.5)["run"] == "ours-lmbda=2-0"  # 100 bytes; Entropic Student's needs 200
    assert recommended(rows, 5)["run"] == "ours-lmbda=1-0"
    assert recommended(rows[:1] + rows[2:], -1)["run"] == "Entropic Student-lmbda=2-0"


def test_the_runs_show_what_the_student_spends(files, tmp_path):
    results, codecs = files
    data, run = tmp_path / "data", tmp_path / "runs" / "ours-lmbda=2-0"
    write_data_set(data, num_train=10, num_val=20)
    run.mkdir(parents=True)
    overrides = [f"dataset_root={json.dumps(str(data))}"]
    config = compose_config(ROOT / "config/quickstart/sg_resnet.yaml", overrides)
    (run / "config.resolved.yaml").write_text(config.resolved)
    shutil.copy(ROOT / "resources/weights/quickstart/sg_resnet.safetensors", run / "weights.safetensors")
    (run / "history.jsonl").write_text('{"val_top1": 50, "loss": 3}\n')
    page = tmp_path / "page"
    report.main([str(results), "--codecs", str(codecs), "--runs", str(tmp_path / "runs"), "-o", str(page)])
    rows = IMAGES // COLUMNS
    with Image.open(page / "spending.png") as sheet:
        assert sheet.size == (COLUMNS * (3 * TILE + 2 * SEAM + GAP) + GAP, rows * (TILE + GAP) + GAP)
    html = (page / "index.html").read_text()
    for name in ("spending.png", "sizes.svg", "training.svg", "times_0.5.svg", "times_2.svg", "rate_accuracy.svg"):
        assert f'<img src="{name}"' in html and (page / name).stat().st_size > 1000


def test_the_readme_has_the_table_of_the_repositorys_rows(tmp_path):
    folder = ROOT / "config/tiny_imagenet"
    report.main([str(folder / "results.csv"), "--codecs", str(folder / "codecs.csv"), "-o", str(tmp_path)])
    assert (tmp_path / "summary.md").read_text() in (ROOT / "README.md").read_text()
