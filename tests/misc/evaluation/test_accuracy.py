import torch

from misc.evaluation.accuracy import Accuracy
from misc.evaluation.evaluate import results_table
from misc.evaluation.timing import latencies_in_turn


def test_accuracy_counts_by_hand():
    accuracy = Accuracy()
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    accuracy.update(logits, torch.tensor([0, 1, 5]))
    assert (accuracy.images, accuracy.top1, accuracy.top5) == (3, 1, 2)


def test_fewer_than_five_classes_count_all_of_them():
    accuracy = Accuracy()
    accuracy.update(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))
    assert accuracy.percent() == (0.0, 100.0)


def test_table_lines_up():
    lines = results_table({"teacher": {"top1": 98.0, "top5": 99.5}, "predictive_loss": 0.5}).splitlines()
    assert lines == ["  teacher top-1 / top-5  98.00 % / 99.50 %", "  predictive loss        0.50 points"]


def test_what_is_timed_takes_turns_and_a_slow_while_counts_for_none():
    calls = []

    def measure(name: str) -> dict[str, float]:
        calls.append(name)
        return {"encode_ms": 100 if len(calls) in (3, 4, 5) else len(calls)}

    assert latencies_in_turn([lambda: measure("a"), lambda: measure("b")], unit="students") == [
        {"encode_ms": 9},  # of 1, 100, 100, 7 and 9
        {"encode_ms": 8},  # of 2, 100, 6, 8 and 10
    ]
    assert calls == ["a", "b"] * 5
    assert latencies_in_turn([], unit="students") == []
