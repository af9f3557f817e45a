from misc.evaluation.curves import Point
from misc.evaluation.evaluate import levels_table, results_table


def test_table_lines_up():
    lines = results_table({"teacher": {"top1": 98.0, "top5": 99.5}, "predictive_loss": 0.5}).splitlines()
    assert lines == ["  teacher top-1 / top-5  98.00 % / 99.50 %", "  predictive loss        0.50 points"]


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
