from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchdistill.losses.high_level import WeightedSumLoss

from misc.errors import UserError
from misc.training import check_steps, freeze_statistics, record_terms, stages_of, to_device


def test_frozen_batch_statistics_do_not_move_and_others_do():
    frozen, free = nn.BatchNorm2d(3).requires_grad_(False), nn.BatchNorm2d(3)
    model = nn.Sequential(frozen, free).train()
    freeze_statistics(model)
    model(torch.randn(4, 3, 2, 2) + 5)
    assert torch.equal(frozen.running_mean, torch.zeros(3))
    assert not torch.equal(free.running_mean, torch.zeros(3))


def test_stages_go_by_number_and_a_single_stage_is_its_own():
    first, second = {"num_epochs": 1}, {"num_epochs": 2}
    assert stages_of({"stage2": second, "stage1": first}) == [first, second]
    assert stages_of(first) == [first]


def test_a_cycle_of_another_length_is_refused():
    check_steps("stage 1", 10, SimpleNamespace(total_steps=10))
    check_steps("stage 1", 10, None)
    with pytest.raises(UserError, match="takes 10 steps, but its scheduler is set up for 12"):
        check_steps("stage 1", 10, SimpleNamespace(total_steps=12))


def test_terms_are_recorded_weighted():
    wrapper = {
        "key": "SimpleLossWrapper",
        "kwargs": {"input": {"is_from_teacher": False, "module_path": ".", "io": "output"}},
    }
    wrapper["kwargs"]["target"] = {"uses_label": True}
    term = {"criterion": {"key": "MSELoss", "kwargs": {}}, "criterion_wrapper": wrapper, "weight": 3.0}
    criterion, terms = WeightedSumLoss(sub_terms={"error": term}), {"of an earlier stage": 1.0}
    record_terms(criterion, terms)
    io = {"student": {".": {"output": torch.tensor([2.0])}}, "teacher": {}}
    assert criterion(io, {}, torch.tensor([0.0])).item() == 12 == terms["error"]
    assert list(terms) == ["error"]


def test_images_become_channels_last_and_targets_keep_their_values():
    batch = {"label": torch.arange(2), "saliency": torch.rand(2, 1, 4, 4)}
    moved = to_device(batch, torch.device("cpu"))
    assert all(torch.equal(moved[key], batch[key]) for key in batch)
    assert to_device(torch.rand(2, 3, 4, 4), torch.device("cpu")).is_contiguous(memory_format=torch.channels_last)
