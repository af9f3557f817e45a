"""The table of a sweep: written, read, and averaged over seeds."""

import json

import pytest

from misc.errors import UserError
from misc.files import ROOT
from misc.sweeps.plan import Run
from misc.sweeps.table import (
    SweepRow,
    curves_of,
    read_rows,
    recommended,
    rows_of,
    students_of,
    summary,
    teacher_top1,
    write_rows,
)


def student(
    run: str, size: float, top1: float, *, method: str = "ours", overrides: str = "", seed: int = 0
) -> SweepRow:
    row = SweepRow(run, method, "a.yaml", overrides, None, 0.1, seed, images=1500)
    return row._replace(top1=top1, predictive_loss=round(65 - top1, 3), sent_bytes=size)


ABSENT = SweepRow("absent", "ours", "a.yaml", "", "first", 0.2, 0)


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("sweep.yaml")), ids=lambda path: path.parent.name)
def test_the_repositorys_tables_are_those_of_their_sweeps(path, tmp_path):
    (table,) = [name for name in ("results.csv", "sweep.csv") if (path.parent / name).is_file()]
    rows = read_rows(path.parent / table)
    write_rows(tmp_path / table, rows)
    assert (tmp_path / table).read_text() == (path.parent / table).read_text()
    assert {row.lmbda for row in rows} - {None}


def test_rows_survive_the_file(tmp_path):
    rows = [student("one", 50.25, 60.0), ABSENT]
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows
    assert "absent,ours,a.yaml,,first,0.2,0,not run,,," in (tmp_path / "rows.csv").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("sent_bytes", "bytes"), "has no column sent_bytes"),
        (lambda text: "", "has no column run"),
        (lambda text: text.splitlines()[0] + "\n", "has no rows"),
        (lambda text: text.replace("60.0", "much"), r"row 1: top1 is 'much', which is not a value of this column"),
        (lambda text: text.replace(",0,1500", ",,1500"), "row 1: seed is ''"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    write_rows(path, [student("one", 50, 60.0)])
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no results at .*nowhere\.csv"):
        read_rows(tmp_path / "nowhere.csv")


def test_a_runs_row_holds_its_results_in_bytes_and_milliseconds(tmp_path, monkeypatch):
    config = ROOT / "config/quickstart/phd_resnet.yaml"
    run = Run("one", "ours", config, ("lmbda=0.2",), 3, tmp_path)
    assert rows_of(run)[0] == SweepRow("one", "ours", "config/quickstart/phd_resnet.yaml", "lmbda=0.2", None, 0.2, 3)
    found = {"images": 9, "top1": 88.88888, "top5": 100, "strings_kb": 0.05, "sent_kb": 0.0625}
    found |= {"bpp_bytes": 0.1000004, "bpp_likelihood": 0.1, "edge_parameters": 1000}
    test = {"student": found, "predictive_loss": 1.23456, "predictive_loss_margin": 0.98765, "git_revision": "abc"}
    (tmp_path / "test.json").write_text(json.dumps(test))
    (tmp_path / "history.jsonl").write_text('{"loss": 9.04, "seconds": 1.5}\n{"loss": 3.06, "seconds": 1.6}\n')
    monkeypatch.setattr(Run, "is_done", lambda run: True)
    row = rows_of(run)[0]
    assert (row.top1, row.predictive_loss, row.first_loss, row.last_loss, row.training_s) == (
        88.889,
        1.235,
        9.0,
        3.1,
        3,
    )
    assert row.predictive_loss_margin == 0.988
    assert (row.string_bytes, row.sent_bytes, row.bpp_bytes, row.encode_ms) == (51.2, 64.0, 0.1, None)
    (tmp_path / "latency.json").write_text('{"encode_ms": 1.26, "decode_ms": 2}')
    assert (rows_of(run)[0].encode_ms, rows_of(run)[0].decode_ms) == (1.3, 2)
    (tmp_path / "test.json").write_text(json.dumps({"model": found, "git_revision": "abc"}))  # a teacher's
    assert rows_of(run)[0].sent_bytes is rows_of(run)[0].predictive_loss is None and rows_of(run)[0].top1 == 88.889


def test_a_student_of_variable_rate_has_a_row_for_each_level_which_are_points_of_one_curve(tmp_path, monkeypatch):
    run = Run("one", "ours", ROOT / "config/quickstart/variable_resnet.yaml", (), 0, tmp_path)
    found = {
        "images": 9,
        "top5": 100,
        "strings_kb": 0.05,
        "bpp_bytes": 0.1,
        "bpp_likelihood": 0.1,
        "edge_parameters": 1,
    }
    found["predictive_loss_margin"] = 0.5
    levels = [
        {**found, "rate": rate, "lmbda": lmbda, "sent_kb": sent / 1024, "top1": top1, "predictive_loss": 90 - top1}
        for rate, lmbda, sent, top1 in ((0, 0.4, 50, 60), (0.25, 0.2, 70, 80), (1, 0.1, 90, 85))
    ]
    test = {"levels": levels, "student": levels[1], "predictive_loss": 10, "git_revision": "abc"}
    (tmp_path / "test.json").write_text(json.dumps(test))
    (tmp_path / "history.jsonl").write_text('{"loss": 9, "seconds": 1}\n')
    monkeypatch.setattr(Run, "is_done", lambda run: True)
    rows = rows_of(run)
    assert [(row.run, row.folder_name, row.rate) for row in rows] == [
        ("one@0", "one", 0),
        ("one@0.25", "one", 0.25),
        ("one@1", "one", 1),
    ]
    assert [(row.lmbda, row.predictive_loss) for row in rows] == [(0.4, 30), (0.2, 10), (0.1, 5)]
    assert {row.predictive_loss_margin for row in rows} == {0.5}
    path = tmp_path / "rows.csv"
    write_rows(path, [*rows, student("fixed", 50, 60.0, overrides="x")])
    assert curves_of(path) == {"ours": [(50, 60), (50, 60), (70, 80), (90, 85)]} and read_rows(path)[:3] == rows
    assert student("fixed", 50, 60.0).rate is None


def test_students_of_one_teacher_are_told_from_those_of_two():
    one = [student("a", 50, 60.0)._replace(top1=60.538, predictive_loss=6.462 + slip) for slip in (0, 0.001, 0.002)]
    assert teacher_top1(one) == 67.0
    with pytest.raises(UserError, match=r"teachers of \[67.0, 67.08\] % top-1"):
        teacher_top1([*one, one[0]._replace(predictive_loss=6.538)])


def test_the_summary_counts_what_was_not_run():
    lines = summary([student("one", 50, 60.0), ABSENT]).splitlines()
    assert lines[2].startswith("| one | 60.0 | 5.0 |") and lines[-1] == "1 of 2 runs: not run"
    assert "not run" not in summary([student("one", 50, 60.0)])


def test_the_spread_is_that_of_the_seeds():
    rows = [student("a", 50, 60), student("b", 100, 65, overrides="x"), student("c", 100, 64, overrides="x", seed=1)]
    students = students_of([*rows, ABSENT])["ours"]
    assert [(each.seeds, each.spread) for each in students] == [(1, None), (2, pytest.approx(0.5**0.5))]
    assert students[1].point == (100, 64.5)


def test_the_smallest_student_within_a_loss_is_recommended_or_else_the_best():
    rows = [student("small", 50, 60), student("large", 200, 64.5), student("good", 100, 65), ABSENT]
    assert recommended(rows, 0.5).run == "good"
    assert recommended(rows, 5).run == "small"
    assert recommended(rows[:2], -1).run == "large"


def test_students_of_two_teachers_are_refused():
    rows = [student("a", 50, 60.0), student("b", 60, 61.0)]
    assert teacher_top1(rows) == 65
    with pytest.raises(UserError, match=r"teachers of \[65.0, 67.0\] % top-1"):
        teacher_top1([rows[0], rows[1]._replace(predictive_loss=6.0)])
