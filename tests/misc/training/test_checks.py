"""Checks before training: stages, and the length of schedules."""

from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import SequentialSampler, TensorDataset

from misc.errors import UserError
from misc.training.checks import check_schedule, other_classifiers_maps, plan_schedules, stages_of


def test_stages_go_by_number_and_a_single_stage_is_its_own():
    first, second = {"num_epochs": 1}, {"num_epochs": 2}
    assert stages_of({"stage2": second, "stage1": first}) == [first, second]
    assert stages_of(first) == [first]


@pytest.mark.parametrize(
    ("images", "options", "steps"),
    [(10, {}, 15), (11, {}, 15), (90, {}, 135), (90, {"scheduling_step": 2}, 67), (90, {"grad_accum_step": 3}, 45)],
)
def test_a_cycle_is_as_long_as_its_stage_whatever_the_data(images, options, steps):
    loader = {"dataset_id": "train", "sampler": {"class_or_func": SequentialSampler}}
    loader["kwargs"] = {"batch_size": 2, "drop_last": True}
    stage = {
        "num_epochs": 3,
        "train_data_loader": loader,
        "optimizer": {"grad_accum_step": options.get("grad_accum_step", 1)},
    }
    stage["scheduler"] = {
        "key": "OneCycleLR",
        "kwargs": {"max_lr": 0.1},
        "scheduling_step": options.get("scheduling_step", 1),
    }
    config = {"datasets": {"train": TensorDataset(torch.zeros(images))}, "train": {"stage1": stage}}
    plan_schedules(config)
    assert stage["scheduler"]["kwargs"] == {"max_lr": 0.1, "total_steps": steps}
    check_schedule("stage 1", stage, images // 2)


def test_schedules_by_epochs_are_left_as_they_are():
    stage = {"num_epochs": 3, "scheduler": {"key": "CosineAnnealingLR", "kwargs": {"T_max": 3}}}
    plan_schedules({"train": {"stage1": stage, "stage2": {"scheduler": None}}})
    assert stage["scheduler"]["kwargs"] == {"T_max": 3}


@pytest.mark.parametrize("length", [{"total_steps": 7}, {"epochs": 2, "steps_per_epoch": 4}])
def test_a_cycle_that_a_config_sets_to_another_length_is_refused(length):
    stage = {"num_epochs": 2, "scheduler": {"key": "OneCycleLR", "kwargs": length, "scheduling_step": 1}}
    with pytest.raises(UserError, match=r"stage 1 takes 10 scheduler steps, its scheduler is set up for [78]: leave"):
        check_schedule("stage 1", stage, 5)
    check_schedule("stage 1", {**stage, "scheduler": None}, 5)


@pytest.mark.parametrize(
    ("manifest", "wrong"),
    [
        ({"settings": {"model": "resnet18"}, "weights_sha256": None}, None),
        ({"settings": {"model": "resnet18"}, "weights_sha256": sha256(b"its").hexdigest()}, None),
        ({"settings": {"model": "resnet18"}, "weights_sha256": sha256(b"other").hexdigest()}, "those of other weights"),
        ({"settings": {"model": "resnet34"}, "weights_sha256": None}, "those of resnet34"),
    ],
)
def test_maps_of_another_classifier_are_told(tmp_path, manifest, wrong):
    (tmp_path / "weights.pth").write_bytes(b"its")
    images = SimpleNamespace(has_maps=True, maps=SimpleNamespace(root="maps", manifest=manifest))
    teacher = {"name": "resnet18", "weights_path": str(tmp_path / "weights.pth")}
    config = {
        "models": {"teacher_model": {"kwargs": teacher}},
        "datasets": {"train": images},
        "train": {"stage1": {"train_data_loader": {"dataset_id": "train"}}},
    }
    expected = [] if wrong is None else [f"Stage 1: the maps in maps are {wrong}, not of the teacher"]
    assert other_classifiers_maps(config) == expected
