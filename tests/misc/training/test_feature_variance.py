"""The variance of h: its value, where it is kept, and what it leaves alone."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import RandomSampler, TensorDataset

from misc.distributed.ranks import ALONE
from misc.errors import UserError
from misc.training.feature_variance import FILE, IMAGES, set_variances, variance_of
from model.backbone import create_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return create_backbone("resnet10t", num_classes=3).eval()


@pytest.fixture
def config():
    """Two stages, one term of each waiting for its variance."""
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(22, 3, 32, 32), torch.zeros(22, dtype=torch.int64))
    loader = {"dataset_id": "train", "sampler": {"class_or_func": RandomSampler}, "kwargs": {"batch_size": 8}}

    def stage(**kwargs):
        terms = {
            "distortion": {"criterion": {"key": "MSELoss", "kwargs": {"reduction": "sum"}}, "weight": 1.0},
            "rate": {"criterion": {"key": "RelativeRateLoss", "kwargs": kwargs}, "weight": 0.1},
        }
        criterion = {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}}
        return {"train_data_loader": loader, "criterion": criterion}

    stages = {"stage1": stage(gains_path="gains"), "stage2": stage(variance=None), "stage3": stage(variance=7.0)}
    return {"datasets": {"train": images}, "train": stages}


def variances(config: dict) -> list[float]:
    stages = config["train"].values()
    return [stage["criterion"]["kwargs"]["sub_terms"]["rate"]["criterion"]["kwargs"]["variance"] for stage in stages]


@torch.no_grad()
def test_it_is_measured_once_kept_and_given_to_every_term_without_one(config, teacher, tmp_path, capsys):
    x = torch.stack([image for image, _ in config["datasets"]["train"]])
    wanted = np.var(teacher.head(x).double().numpy(), axis=0, ddof=1).sum() / 32**2
    state = torch.random.get_rng_state()
    set_variances(config, {"teacher_model": teacher}, CPU, tmp_path, ALONE)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second, given = variances(config)
    assert first == second == pytest.approx(wanted, rel=1e-5) and given == 7.0
    assert json.loads((tmp_path / FILE).read_text()) == {"variance_per_pixel": first, "images": 22}
    assert "over 22 training images" in capsys.readouterr().out


def test_a_resumed_run_reads_it(config, teacher, tmp_path):
    (tmp_path / FILE).write_text('{"variance_per_pixel": 5.0}')
    set_variances(config, {"teacher_model": teacher}, CPU, tmp_path, ALONE)
    assert variances(config) == [5.0, 5.0, 7.0]


def test_a_teacher_that_is_not_cut_is_refused(config, tmp_path):
    with pytest.raises(UserError, match="timm_backbone"):
        set_variances(config, {"model": nn.Identity()}, CPU, tmp_path, ALONE)


def test_no_more_images_are_taken_than_needed():
    taken = []

    def batches():
        for number in range(100):
            taken.append(number)
            yield torch.randn(IMAGES // 4, 3, 2, 2)

    variance, images = variance_of(nn.Identity(), batches(), CPU, 100 * IMAGES)
    assert images == IMAGES and len(taken) == 4
    assert variance == pytest.approx(3.0, rel=0.1)
