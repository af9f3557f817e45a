from misc.evaluation.evaluate import results_table


def test_table_lines_up():
    lines = results_table({"teacher": {"top1": 98.0, "top5": 99.5}, "predictive_loss": 0.5}).splitlines()
    assert lines == ["  teacher top-1 / top-5  98.00 % / 99.50 %", "  predictive loss        0.50 points"]
