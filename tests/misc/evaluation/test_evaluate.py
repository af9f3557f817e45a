import math

import pytest

from misc.evaluation.curves import Point
from misc.evaluation.evaluate import levels_table, predictive_loss, results_table


def test_table_lines_up():
    results = {"teacher": {"top1": 98.0, "top5": 99.5}, "predictive_loss": 0.5, "predictive_loss_margin": 0.75}
    assert results_table(results).splitlines() == [
        "  teacher top-1 / top-5  98.00 % / 99.50 %",
        "  predictive loss        0.50 points (95 % interval -0.25 to 1.25)",
    ]
    one = results_table({**results, "predictive_loss_margin": None}).splitlines()
    assert one[1] == "  predictive loss        0.50 points"


def test_curve_and_bd_rates_as_text():
    rows = [
        {"rate": rate, "lmbda": lmbda, "sent_kb": sent / 1024, "top1": top1}
        for rate, lmbda, sent, top1 in ((0, 0.4, 50, 60), (0.5, 0.2, 100, 64), (1, 0.1, 200, 66))
    ]
    double = [Point(100, 60), Point(200, 64), Point(400, 66)]
    lines = levels_table(rows, {"double": double, "elsewhere": [Point(1, 10), Point(2, 11)]}).splitlines()
    assert lines[1].split() == ["0.00", "0.4", "50.0", "60.00", "%"]
    assert lines[4] == "  BD-rate against double: -50.0 % (60.00 to 66.00 % top-1)"
    assert lines[5].endswith("the curves share less than a point of top-1")


def test_paired_interval_of_the_loss_by_hand():
    teacher = [True] * 80 + [False] * 20
    student = [True] * 70 + [False] * 10 + [True] * 5 + [False] * 15
    found = predictive_loss(teacher, student)
    assert found["predictive_loss"] == 5
    deviation = math.sqrt((15 - 100 * 0.05**2) / 99)  # of 10 differences of 1, 5 of -1 and 85 of 0
    assert found["predictive_loss_margin"] == pytest.approx(100 * 1.98422 * deviation / 10, rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "student", "loss"),
    [([True, False], [True, False], 0), ([True] * 3, [False] * 3, 100), ([True], [True], 0)],
)
def test_equal_differences_have_no_interval(teacher, student, loss):
    assert predictive_loss(teacher, student) == {"predictive_loss": loss, "predictive_loss_margin": None}


def test_loss_is_a_column_of_the_curve():
    row = {"rate": 0, "lmbda": 0.4, "sent_kb": 1, "top1": 60, "predictive_loss": 1.5, "predictive_loss_margin": 0.75}
    header, *lines = levels_table([row, {**row, "top1": 100}, {**row, "top1": 5}], {}).splitlines()
    assert lines[0].endswith("1024.0   60.00 %" + "1.50 ± 0.75".rjust(32))
    assert {len(line) for line in lines} == {len(header)}
