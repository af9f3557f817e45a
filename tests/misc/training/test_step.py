"""One training step: the loss and its terms, the auxiliary loss, what must not move."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchdistill.losses.high_level import WeightedSumLoss

from misc.errors import UserError
from misc.training.step import TrainingStep, freeze_statistics, record_terms, to_device
from model.decoder import ResNetDecoder
from model.encoder import ResidualEncoder
from model.entropy import FactorizedPrior
from model.split import SplitClassifier

CPU = torch.device("cpu")


class Box:
    """Stands in for torchdistill's: gives a loss and notes what is done with it."""

    def __init__(self, loss: torch.Tensor):
        self.loss, self.updates = loss, []

    def forward_process(self, x: torch.Tensor, targets: torch.Tensor, supp_dict: dict) -> torch.Tensor:
        self.autocasts = torch.is_autocast_enabled("cpu")
        return self.loss

    def post_forward_process(self, loss: torch.Tensor) -> None:
        self.updates.append(float(loss))


def test_a_step_needs_no_files_and_gives_the_loss():
    box = Box(torch.tensor(2.0))
    step = TrainingStep(box, nn.Identity(), CPU)
    x, labels = torch.zeros(1, 3, 2, 2), torch.zeros(1)
    assert step.take(x, labels, {}, "stage 1, epoch 1, step 1") == 2 and box.updates == [2]
    assert not box.autocasts
    step.autocast = "bfloat16"
    step.take(x, labels, {}, "stage 1, epoch 1, step 2")
    assert box.autocasts


def test_a_loss_that_is_not_finite_stops_before_any_update():
    box = Box(torch.tensor(float("inf")))
    step = TrainingStep(box, nn.Identity(), CPU)
    step.loss_terms["rate"] = 5.0
    with pytest.raises(UserError, match=r"not finite in stage 1, epoch 2, step 3 \(rate 5\): lower the learning rate"):
        step.take(torch.zeros(1), torch.zeros(1), {}, "stage 1, epoch 2, step 3")
    assert not box.updates


def test_the_auxiliary_loss_reaches_the_quantiles_alone_unless_they_are_frozen():
    decoder = ResNetDecoder(width=8, out_channels=16, depth=1, bottleneck=False)
    student = SplitClassifier(ResidualEncoder(), FactorizedPrior(), decoder, nn.Identity())
    step = TrainingStep(Box(torch.tensor(1.0)), student, CPU)
    step.take(torch.zeros(1), torch.zeros(1), {}, "")
    reached = [name for name, parameter in student.named_parameters() if parameter.grad is not None]
    assert reached and all(name.endswith("quantiles") for name in reached)
    student.zero_grad()
    student.entropy_model.requires_grad_(False)
    step.take(torch.zeros(1), torch.zeros(1), {}, "")
    assert not any(parameter.grad is not None for parameter in student.parameters())


def test_each_stage_begins_with_its_own_terms():
    box = SimpleNamespace(criterion=SimpleNamespace(term_dict={"rate": (nn.MSELoss(), 2.0)}))
    step = TrainingStep(box, nn.Identity(), CPU)
    step.loss_terms["of an earlier stage"] = 1.0
    step.begin_stage("bfloat16")
    assert not step.loss_terms and step.autocast == "bfloat16"
    box.criterion.term_dict["rate"][0](torch.tensor(3.0), torch.tensor(0.0))
    assert step.loss_terms == {"rate": 18.0}


def test_the_weight_of_the_rate_rises_and_stays():
    terms = {"rate": (nn.MSELoss(), 2.0), "distortion": (nn.MSELoss(), 1.0)}
    step = TrainingStep(SimpleNamespace(criterion=SimpleNamespace(term_dict=terms)), nn.Identity(), CPU)
    step.begin_stage(rate_warmup=0.2)
    for share, weight in ((0.0, 0.0), (0.05, 0.5), (0.2, 2.0), (0.9, 2.0)):
        step.weigh_rate(share)
        terms["rate"][0](torch.tensor(3.0), torch.tensor(0.0))
        assert terms["rate"][1] == pytest.approx(weight) and step.loss_terms["rate"] == pytest.approx(9 * weight)
    assert terms["distortion"][1] == 1.0
    step.begin_stage()
    step.weigh_rate(0.0)
    assert terms["rate"][1] == 2.0


def test_a_stage_sets_the_momentum_of_batch_statistics_and_the_next_restores_it():
    own = nn.BatchNorm2d(3, momentum=0.2)
    step = TrainingStep(SimpleNamespace(criterion=SimpleNamespace(term_dict={})), nn.Sequential(own), CPU)
    step.begin_stage(bn_momentum=0.005)
    own(torch.ones(2, 3, 2, 2))
    assert torch.allclose(own.running_mean, torch.full((3,), 0.005))
    step.begin_stage()
    assert own.momentum == 0.2


def test_frozen_batch_statistics_do_not_move_and_others_do():
    frozen, free = nn.BatchNorm2d(3).requires_grad_(False), nn.BatchNorm2d(3)
    model = nn.Sequential(frozen, free).train()
    freeze_statistics(model)
    model(torch.randn(4, 3, 2, 2) + 5)
    assert torch.equal(frozen.running_mean, torch.zeros(3))
    assert not torch.equal(free.running_mean, torch.zeros(3))


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
