"""Checks before training: stages, and the length of schedules."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import SequentialSampler, TensorDataset

from misc.errors import UserError
from misc.training.checks import (
    check_bn_momentum,
    check_levels_weight,
    check_schedule,
    check_warmup,
    other_classifiers_maps,
    plan_schedules,
    stages_of,
)
from model.classifier import create_timm_model
from model.weights import digest, save_weights


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
    ("maps_of", "wrong"),
    [
        ("resnet10t", None),
        ("other weights", "resnet10t with other weights"),
        ("resnet14t", "resnet14t"),
        ("unknown", None),
    ],
)
def test_maps_of_another_classifier_are_told(tmp_path, maps_of, wrong):
    model = create_timm_model("resnet10t", num_classes=3)
    save_weights(model, tmp_path / "weights.safetensors")
    explained = create_timm_model(maps_of if maps_of == "resnet14t" else "resnet10t", num_classes=3)
    settings = {"model": explained.default_cfg["architecture"]}
    if maps_of == "resnet10t":
        explained = model
    if maps_of != "unknown":
        settings["model_sha256"] = digest(explained)
    images = SimpleNamespace(has_maps=True, maps=SimpleNamespace(root="maps", manifest={"settings": settings}))
    teacher = {"name": "resnet10t", "weights_path": str(tmp_path / "weights.safetensors"), "split_idx": 2}
    config = {
        "models": {"teacher_model": {"kwargs": teacher}},
        "datasets": {"train": images},
        "train": {"stage1": {"train_data_loader": {"dataset_id": "train"}}},
    }
    expected = [] if wrong is None else [f"Stage 1: the maps in maps are those of {wrong}, not of the teacher"]
    assert other_classifiers_maps(config) == expected


def test_a_rate_is_weighted_by_levels_or_by_lmbda_not_by_both():
    rate = {"criterion": {"key": "RateLoss", "kwargs": {"gains_path": "entropy_model.gains"}}, "weight": 1.0}
    stage = {"criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"rate": rate}}}}
    check_levels_weight("stage 1", stage)
    rate["weight"] = 0.1
    with pytest.raises(UserError, match="stage 1: the term 'rate' is weighted by the lmbda of each level, and again"):
        check_levels_weight("stage 1", stage)
    rate["criterion"]["kwargs"] = {"gains_path": None}
    check_levels_weight("stage 1", stage)


def test_a_warm_up_is_a_share_of_the_steps_of_a_stage_with_a_rate():
    stage = {"criterion": {"kwargs": {"sub_terms": {"rate": {}}}}, "rate_warmup": 0.1}
    check_warmup("stage 1", stage)
    with pytest.raises(UserError, match=r"stage 1: rate_warmup is 5; expected a share of the stage's steps, 0 to 1"):
        check_warmup("stage 1", {**stage, "rate_warmup": 5})
    stage["criterion"]["kwargs"]["sub_terms"] = {"rates": {}}
    with pytest.raises(UserError, match="rate_warmup needs a term 'rate' in the criterion; did you mean 'rates'"):
        check_warmup("stage 1", stage)
    check_warmup("stage 1", {**stage, "rate_warmup": None})


def test_a_momentum_of_batch_statistics_outside_of_0_to_1_is_refused():
    for momentum in (0, 1, -0.1):
        with pytest.raises(UserError, match=f"stage 2: bn_momentum is {momentum:g}; expected a number between 0 and 1"):
            check_bn_momentum("stage 2", {"bn_momentum": momentum})
    check_bn_momentum("stage 2", {"bn_momentum": 0.005})
    check_bn_momentum("stage 2", {})
