import torch

from misc.evaluation.accuracy import Accuracy


def test_accuracy_counts_by_hand():
    accuracy = Accuracy()
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    accuracy.update(logits, torch.tensor([0, 1, 5]))
    assert (accuracy.hits, accuracy.top5) == ([True, False, False], 2)


def test_fewer_than_five_classes_count_all_of_them():
    accuracy = Accuracy()
    accuracy.update(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))
    assert accuracy.percent() == (0.0, 100.0)
