"""The report's rows, table and page from written test results."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from misc.errors import UserError
from misc.evaluation.codec_table import CodecPoint
from misc.files import ROOT
from misc.reports import quickstart as report
from misc.tables import text_table

POINTS = [
    CodecPoint("JPEG", 5, 512.0, 0.5, 1.0, 60.0, 90.0, 95.0, 10, 2.0, 3.0),
    CodecPoint("JPEG", 60, 2048.0, 2.0, 4.0, 90.0, 100.0, 95.0, 10, 2.0, 3.0),
    CodecPoint("WebP", 0, 256.0, 0.25, 0.5, 70.0, 95.0, 95.0, 10, 2.0, 3.0),
]


def results_of(top1: float, sent_kb: float = 0.0625, teacher: float = 95.0, images: int = 10) -> dict:
    """Return what a test writes for a student; its strings are half of what is sent."""
    student = {
        "images": images,
        "top1": top1,
        "top5": 99.0,
        "strings_kb": sent_kb / 2,
        "sent_kb": sent_kb,
        "bpp_bytes": sent_kb / 2 * 1024 * 8 / 4096,
        "edge_parameters": 142_320,
    }
    return {
        "teacher": {"images": images, "top1": teacher, "top5": 100.0},
        "student": student,
        "weights": str(ROOT / "resources" / "weights.safetensors"),
        "command": "main_classification_torchdistill.py --set a=<b>",
        "git_revision": "abc123",
        "seed": 0,
        "time": "2025-01-01 10:00:00",
        "python": "3.11.9",
        "versions": {"torch": "2.6.0"},
    }


@pytest.fixture
def run_dir(tmp_path):
    """Write a run folder and return it."""

    def write(name: str, *args, **kwargs) -> Path:
        path = tmp_path / "runs" / name / "test.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results_of(*args, **kwargs)))
        return path.parent

    return write


def test_runs_are_labelled_below_their_common_folder_and_sorted_best_first(run_dir):
    folders = [run_dir("seed0/phd", 80.0), run_dir("seed1/phd", 90.0), run_dir("sg", 85.0)]
    assert [run.label for run in report.read_runs(folders)] == ["seed1/phd", "sg", "seed0/phd"]
    assert [run.label for run in report.read_runs(folders[:1])] == ["phd"]


def test_rows_hold_teacher_students_and_codecs(run_dir, tmp_path):
    runs = report.read_runs([run_dir("sg", 85.0)])
    rows = report.results_rows(runs, POINTS, tmp_path / "codecs.csv")
    assert [(row.method, row.setting) for row in rows] == [
        ("teacher", ""),
        ("student", "sg"),
        ("JPEG", "quality 5"),
        ("JPEG", "quality 60"),
        ("WebP", "quality 0"),
    ]
    student = rows[1]
    assert (student.kb, student.bpp) == pytest.approx((0.0625, 64 * 8 / 4096))
    assert (student.predictive_loss, student.encoder_parameters) == (10.0, 142_320)
    assert rows[3].predictive_loss == 5.0
    parsed = list(csv.DictReader(report.results_csv(rows).splitlines()))
    assert parsed[0]["kb"] == parsed[2]["encoder_parameters"] == ""
    assert float(parsed[1]["top1"]) == 85.0


def test_the_table_compares_at_the_students_accuracy(run_dir):
    table = report.summary_table(report.read_runs([run_dir("sg", 75.0)]), POINTS)
    assert table == [
        ["", "top-1", "loss", "bytes/image", "JPEG needs", "WebP needs"],
        ["teacher", "95.00 %", "", "", "", ""],
        ["sg", "75.00 %", "20.00", "64.0", "16.0 ×", "not reached"],  # JPEG: half way from 512 to 2048 in log-bytes
    ]
    lines = text_table(table).splitlines()
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"top1": 80.0, "teacher": 94.0}, "teachers differ"),
        ({"top1": 80.0, "images": 20}, "different images"),
    ],
)
def test_what_cannot_be_compared_is_refused(run_dir, second, said):
    runs = report.read_runs([run_dir("a", 85.0), run_dir("b", **second)])
    with pytest.raises(UserError, match=said):
        report.teacher_of(runs, POINTS)


def test_codecs_of_another_teacher_are_refused(run_dir):
    runs = report.read_runs([run_dir("a", 85.0)])
    with pytest.raises(UserError, match=r"the codecs were evaluated with a teacher of 80.00 % top-1"):
        report.teacher_of(runs, [point._replace(teacher_top1=80.0) for point in POINTS])


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no test results at .*nothing"):
        report.read_runs([tmp_path / "nothing"])


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_results_without_a_part_are_refused(run_dir, part):
    folder = run_dir("sg", 85.0)
    results = json.loads((folder / "test.json").read_text())
    del results[part]
    (folder / "test.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=f"has no {part}"):
        report.read_runs([folder])


class Page(HTMLParser):
    """The images, text and unclosed elements of a page that has no scripts or links to other files."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("link", "script")
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_escapes_its_values(run_dir):
    runs = report.read_runs([run_dir("s<g", 75.0)])
    conditions = report.conditions(runs, "make maps", "make page")
    page = Page(report.page(report.summary_table(runs, POINTS), "1 < 2 <script>", conditions).decode())
    assert page.open == []
    assert page.images == ["rate_accuracy.svg", "saliency.png"]
    for text in ("s<g", "16.0 ×", "1 < 2 <script>", "--set a=<b>", "weights resources/weights.safetensors"):
        assert text in page.text
    assert "git abc123" in page.text
