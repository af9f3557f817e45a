"""The report on a made-up sweep and codec: its tables, its page, its errors and notices."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from misc.config.load import compose_config
from misc.datasets.digits import write_data_set
from misc.evaluation.codec_table import CodecPoint, write_points
from misc.files import ROOT
from misc.sweeps.table import SweepRow, write_rows
from saliency_maps.analysis.sheets import SEAM
from saliency_maps.analysis.spending_sheet import COLUMNS, GAP, IMAGES, TILE
from saliency_maps.analysis.text import LINE
from scripts import report

TEACHER = 65.0


def row(method: str, lmbda: float, size: float, top1: float, seed: int = 0) -> SweepRow:
    row = SweepRow(f"{method}-{lmbda:g}-{seed}", method, "a.yaml", f"lmbda={lmbda}", None, lmbda, seed, images=1500)
    return row._replace(
        top1=top1, predictive_loss=round(TEACHER - top1, 3), sent_bytes=size, encode_ms=4.0, decode_ms=6.0
    )


ROWS = [
    row("ours", 1, 50, 60.0),
    row("ours", 2, 100, 65.0, seed=0),
    row("ours", 2, 100, 64.0, seed=1),
    row("Entropic Student", 1, 100, 60.0),
    row("Entropic Student", 2, 200, 64.5),
    SweepRow("ours-3-0", "ours", "a.yaml", "lmbda=3", None, 3, 0),
]


def halves(method: str, shift: float) -> list[SweepRow]:
    """Return runs of three seeds, each with two lmbda, that begin with first halves."""
    return [
        row(method, lmbda, size, top1 + 0.1 * seed + shift, seed)._replace(begins_with=f"first-seed{seed}")
        for seed in (0, 1, 2)
        for lmbda, size, top1 in ((0.1, 100, 62), (0.2, 50, 60))
    ]


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A sweep's table and a codec file."""
    write_rows(tmp_path / "results.csv", ROWS)
    points = [
        CodecPoint("JPEG", quality, size, 1.0, 1.0, top1, 90.0, TEACHER, 1500, 2.0, 3.0)
        for quality, size, top1 in ((1, 400, 50.0), (2, 800, 66.0))
    ]
    write_points(tmp_path / "codecs.csv", points)
    return tmp_path / "results.csv", tmp_path / "codecs.csv"


def test_tables_and_page(files, tmp_path, capsys):
    results, codecs = files
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page")])
    output = capsys.readouterr()
    printed = output.out.splitlines()
    lines = [[cell.strip() for cell in re.split(" {2,}", line.strip())] for line in printed]
    # Half the bytes at both ends, seeds averaged. JPEG by hand: 70.7 of 680 bytes in the middle.
    size = f"{50 * 2 ** (3 / 4.5):.0f}"  # two points below the teacher
    assert lines[3] == ["ours", "2", "50 to 100", "60.0 to 64.5", "100", size]
    assert lines[4] == ["Entropic Student", "2", "100 to 200", "60.0 to 64.5", "200", f"{100 * 2 ** (3 / 4.5):.0f}"]
    assert lines[5][0] == "JPEG" and float(lines[5][4]) == pytest.approx(400 * 2 ** (14.5 / 16), abs=0.5)
    assert lines[7:9] == [
        ["BD-rate against", "Entropic Student", "JPEG"],
        ["ours", "-50 % (60.0-64.5)", "-90 % (60.0-64.5)"],
    ]
    # The student at 65 %: 4 + 6 ms and 100 bytes, 8 ms at 0.1 Mbit/s. JPEG: 2 + 3 ms and 400 * 2 ** (15 / 16) bytes.
    assert printed[12] == "At most 0.5 points of loss: ours-2-0 (65.00 %, 0.00 points), ms"
    assert printed[17].split() == ["0.1", "Mbit/s,", "computed", "18.0", "66.3", "3.7"]
    summary = (tmp_path / "page" / "summary.md").read_text()
    assert f"| ours | 2 | 50 to 100 | 60.0 to 64.5 | 100 | {size} |\n" in summary
    assert "| ours | -50 % (60.0-64.5) | -90 % (60.0-64.5) |\n" in summary
    assert "of 1,500 images," in summary and "is about 1.2 points over images" in summary
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Weights of the distortion" not in summary + page
    assert "notice: no runs begin with the same weights as those of 'second half, no weights'" in output.err
    assert "--anchors" not in output.err  # there is Entropic Student
    assert "ours-3-0" in page and "not run" in page and "65.00 %" in page
    assert (tmp_path / "page" / "rate_accuracy.svg").read_bytes().startswith(b"<?xml")


def test_weights_of_the_distortion_are_compared_where_they_were_run(files, tmp_path, capsys):
    results, codecs = files
    command = [str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page")]
    firsts = [row("first half", 0.2, 60, 55.0, seed)._replace(run=f"first-seed{seed}") for seed in (0, 1, 2)]
    write_rows(results, [*ROWS, *firsts, *halves(report.REFERENCE, 0), *halves("second half, <i>XGradCAM</i>", 1)])
    report.main(command)
    summary, html = ((tmp_path / "page" / name).read_text() for name in ("summary.md", "index.html"))
    assert "### Weights of the distortion\n\n|  | bytes, lmbda 0.1 |" in summary
    # Two points for twice the bytes, so that one point is worth the square root of two.
    cells = "100.0 | 63.10 ± 0.10 (3) | 50.0 | 61.10 ± 0.10 (3) | +1.00 ± 0.00 (3) | -29.3 ± 0.0 (3)"
    assert f"| second half, <i>XGradCAM</i> | {cells} |" in summary
    said = 'top-1 is higher with "second half, <i>XGradCAM</i>" (+1.0 to +1.0 points; bytes -29.3 to -29.3 %).'
    output = capsys.readouterr()
    assert said in summary and said in output.out and "notice" not in output.err
    assert "second half, &lt;i&gt;XGradCAM" in html and "<i>" not in html
    assert "<h2>Weights of the distortion</h2>" in html and '<img src="weights.svg"' in html
    assert (tmp_path / "page" / "weights.svg").read_bytes().startswith(b"<?xml")
    curves = summary.partition("###")[0]
    assert "| ours |" in curves and "half" not in curves


def test_another_reference_may_be_named(files, tmp_path, capsys):
    results, codecs = files
    firsts = [row("first half", 0.2, 60, 55.0, seed)._replace(run=f"first-seed{seed}") for seed in (0, 1, 2)]
    write_rows(results, [*firsts, *halves("plain", 0), *halves("weighted", -1), ROWS[0]])
    command = [str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page")]
    report.main([*command, "--reference", "plain"])
    output = capsys.readouterr()
    assert 'against "plain", top-1 is lower with "weighted"' in output.out
    assert "notice: no curve named Entropic Student*" in output.err and "seed by seed" not in output.err
    report.main([*command, "--reference", "ours"])
    assert "as those of 'ours': nothing is compared seed by seed" in capsys.readouterr().err


def test_the_plot_shows_the_named_methods(files, tmp_path):
    results, codecs = files
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "all")])
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "one"), "--plot", "ours"])
    every, one = ((tmp_path / name / "rate_accuracy.svg").read_text() for name in ("all", "one"))
    assert "Entropic Student" in every and "Entropic Student" not in one and "ours" in one
    assert "Entropic Student" in (tmp_path / "one" / "summary.md").read_text()


@pytest.mark.parametrize("loss", ["-1", "nan", "0.001", "one"])
def test_a_loss_is_points(files, tmp_path, capsys, loss):
    results, codecs = files
    with pytest.raises(SystemExit):
        report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page"), "--losses", loss])
    assert f"'{loss}'" in capsys.readouterr().err


def test_one_loss_is_enough(files, tmp_path):
    results, codecs = files
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page"), "--losses", "3"])
    assert "where the curve crosses 3 points below the teacher" in (tmp_path / "page" / "summary.md").read_text()


def test_losses_may_be_named(files, tmp_path, capsys):
    results, codecs = files
    report.main([str(results), "--codecs", str(codecs), "-o", str(tmp_path / "page"), "--losses", "5", "1", "2"])
    summary = (tmp_path / "page" / "summary.md").read_text()
    assert "| bytes at 1 loss | bytes at 2 loss | bytes at 5 loss |" in summary
    assert "where the curve crosses 1, 2 and 5 points below the teacher" in summary
    assert "At most 5 points of loss: ours-1-0 (60.00 %, 5.00 points), ms" in capsys.readouterr().out
    assert (tmp_path / "page" / "times_5.svg").is_file()


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (
            lambda text: text,
            ["--anchors", "ours", "Entropic"],
            "--anchors Entropic is no method .* did you mean 'Entropic Student'",
        ),
        (lambda text: text, ["--plot", "our"], "--plot our is no method that was run; did you mean 'ours'"),
        (lambda text: text.replace("sent_bytes", "bytes"), [], "has no column sent_bytes"),
        (lambda text: text.replace(",60.0,,5.0,", ",60.0,,9.0,"), [], r"teachers of \[65.0, 69.0\] % top-1"),
        (lambda text: text, ["--reference", "our"], "--reference our is no method of the table; did you mean 'ours'"),
        (lambda text: text.replace("1500", "not run"), [], "has no student that was run"),
        (lambda text: text, ["--runs", "/nowhere"], "/nowhere holds none of the table's runs"),
        (lambda text: text.replace(",1500,", ",100,", 1), [], r"students were tested on \[100, 1500\] images"),
        (lambda text: text.replace(",4.0,6.0", ",,"), [], "ours-2-0 is not timed yet"),
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


def test_the_runs_show_what_the_student_spends(files, tmp_path):
    results, codecs = files
    data, run = tmp_path / "data", tmp_path / "runs" / "ours-2-0"
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
        assert sheet.size == (COLUMNS * (3 * TILE + 2 * SEAM + GAP) + GAP, rows * (LINE + TILE + GAP) + GAP)
    html = (page / "index.html").read_text()
    for name in ("spending.png", "sizes.svg", "training.svg", "times_0.5.svg", "times_2.svg", "rate_accuracy.svg"):
        assert f'<img src="{name}"' in html and (page / name).stat().st_size > 1000


def test_a_readme_has_the_table_of_the_repositorys_rows(tmp_path):
    folder = ROOT / "config/tiny_imagenet"
    report.main([str(folder / "results.csv"), "--codecs", str(folder / "codecs.csv"), "-o", str(tmp_path)])
    assert (tmp_path / "summary.md").read_text() in (folder / "README.md").read_text()
