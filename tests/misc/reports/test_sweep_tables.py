"""Cells of a sweep's tables, by hand."""

from misc.evaluation.curves import Point
from misc.reports.link import Route
from misc.reports.sweep_tables import bd_rate_table, range_of, runs_table, size_at, student_title, times_table
from misc.sweeps.table import SweepRow

ROW = SweepRow("one", "ours", "a.yaml", "", None, 0.1, 0)


def test_bytes_at_an_accuracy_say_why_there_are_none():
    curve = [Point(100, 60), Point(200, 64)]
    assert [size_at(curve, top1) for top1 in (59, 62, 65)] == ["at most 100", "141", "not reached"]


def test_a_range_of_one_value_is_that_value():
    assert range_of([2.0, 1.0], ".1f") == "1.0 to 2.0" and range_of([3.0], ".0f") == "3"


def test_a_curve_has_no_bd_rate_against_itself_and_a_single_point_no_row():
    curves = {
        "ours": [Point(50, 60), Point(100, 64)],
        "theirs": [Point(100, 60), Point(200, 64)],
        "point": [Point(9, 62)],
    }
    assert bd_rate_table(curves, ["theirs"]) == [["BD-rate against", "theirs"], ["ours", "-50 % (60.0-64.0)"]]


def test_a_codecs_time_is_a_multiple_of_the_students():
    table = times_table({"student": Route(125, 3, 4), "JPEG": Route(1250, 1, 2)})
    assert table[0] == ["", "student", "JPEG", "JPEG, times"]
    assert table[4] == ["0.1 Mbit/s, computed", "17.0", "103.0", "6.1"]


def test_the_title_says_whether_the_loss_is_reached():
    row = ROW._replace(top1=64.0, predictive_loss=1.0)
    assert student_title(row, 2.0) == "At most 2 points of loss: one (64.00 %, 1.00 points)"
    with_margin = row._replace(predictive_loss_margin=0.75)
    assert student_title(with_margin, 2.0) == "At most 2 points of loss: one (64.00 %, 1.00 ± 0.75 points)"
    assert student_title(row, 0.5) == "No student loses at most 0.5 points; the least: one (64.00 %, 1.00 points)"


def test_runs_that_were_not_run_say_so_in_every_cell():
    teacher = ROW._replace(images=9, top1=64.0, training_s=5)
    _, absent, tested = runs_table([ROW, teacher])
    assert absent == ["one", "ours", "0", *["not run"] * 7]
    assert tested == ["one", "ours", "0", "64.0", "", "", "", "", "", "5"]
