"""Ranks on the CPU, in forked processes, which need not import anything again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset
from torchdistill.datasets.util import build_data_loader
from torchdistill.losses.mid_level import KDLoss, SimpleLossWrapper, SPKDLoss

from misc.distributed.batches import PartOfEachBatch, SomeBatches, check_batches, shared
from misc.distributed.gradients import check_terms, reduction_of
from misc.distributed.launch import in_processes
from misc.distributed.ranks import ALONE, Ranks, joined_ranks
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.accuracy import evaluate_classifier, validate
from misc.evaluation.evaluate import evaluate_student
from misc.files import ROOT
from misc.training.step import TrainingStep
from model.decoder import ResNetDecoder
from model.encoder import ResidualEncoder
from model.entropy import FactorizedPrior
from model.losses import BppLoss, FeatureHint, RateLoss, SaliencyWeightedDistortion
from model.split import SplitClassifier, create_split_classifier

CPU = torch.device("cpu")
PATIENCE = timedelta(seconds=60)


def on_two(function: Callable[..., Any], *args: Any) -> list[Any]:
    return in_processes(2, joined, function, *args, start_method="fork")


@exit_on_user_error
def joined(function: Callable[..., Any], *args: Any) -> Any:
    with joined_ranks(PATIENCE) as ranks:
        return function(ranks, *args)


def test_shares_are_a_partition_and_the_first_is_not_empty():
    for count in range(8):
        shares = [list(Ranks(rank, 3).share(range(count))) for rank in range(3)]
        assert list(chain(*shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1 and (shares[0] or not count)


def test_a_single_rank_communicates_with_nobody():
    assert ALONE.sum([1, 2.5]) == ALONE.mean([1, 2.5]) == [1, 2.5]
    assert ALONE.gather(["a"]) == ["a"] and ALONE.from_first(lambda: 3) == 3 and ALONE.own_seed(7) == 7
    config = {"kwargs": {"batch_size": 5}}
    assert shared(config, PartOfEachBatch, ALONE) is config


def test_batches_that_cannot_be_divided_are_refused():
    two, images = Ranks(0, 2), list(range(7))
    check_batches("stage 1", DataLoader(images, 4, drop_last=True), two)
    check_batches("stage 1", DataLoader(images[:6], 4), two)
    check_batches("stage 1", DataLoader(images, 4, sampler=RandomSampler(images, num_samples=6)), two)
    for loader, message in (
        (DataLoader(images, 5), "2 processes do not divide 5"),
        (DataLoader(images, 4), "has 3 images"),
        (DataLoader(images[:6], 4, sampler=RandomSampler(images, num_samples=5)), "has 1 images"),
    ):
        with pytest.raises(UserError, match=message):
            check_batches("stage 1", loader, two)
    for kind in (PartOfEachBatch, SomeBatches):
        with pytest.raises(UserError, match="batch_sampler"):
            shared({"kwargs": {}, "batch_sampler": {"key": "BatchSampler"}}, kind, two)
    unequal = PartOfEachBatch(SequentialSampler(images), Ranks(0, 2), 4)
    unequal.ranks = SimpleNamespace(world_size=2, from_first=lambda make: make(), share=two.share)
    with pytest.raises(UserError, match="2 processes do not divide a batch of 3 images"):
        list(unequal)


def test_losses_of_unknown_reduction_are_refused():
    place = {"input": {"is_from_teacher": False, "module_path": ".", "io": "output"}}
    sums = [RateLoss(), SaliencyWeightedDistortion("a", "b"), SimpleLossWrapper(nn.MSELoss(reduction="sum"), **place)]
    means = [
        BppLoss(),
        FeatureHint("a", "b"),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        KDLoss(".", "", ".", "", 1, 0.5),
    ]
    assert {reduction_of(term) for term in sums} == {"sum"} and {reduction_of(term) for term in means} == {"mean"}
    for term in (SPKDLoss("a", "b", "batchmean"), nn.CrossEntropyLoss(torch.ones(3)), nn.MSELoss(reduction="none")):
        criterion = SimpleNamespace(term_dict={"mine": (term, 1.0)}, model_loss_factor=None)
        with pytest.raises(UserError, match=r"stage 1: mine .* is not a plain sum or mean"):
            check_terms("stage 1", criterion)


def epochs(ranks: Ranks) -> tuple[list, list, list, float]:
    """Read two training epochs and an evaluation; return their indices, and a random number."""
    torch.manual_seed(ranks.own_seed(0))
    images = list(range(14))
    kwargs = {"kwargs": {"batch_size": 4, "drop_last": True}, "sampler": {"class_or_func": RandomSampler}}
    training = build_data_loader(images, shared(kwargs, PartOfEachBatch, ranks), distributed=False)
    kwargs = {"kwargs": {"batch_size": 4}, "sampler": {"class_or_func": SequentialSampler}}
    testing = build_data_loader(images, shared(kwargs, SomeBatches, ranks), distributed=False)
    assert len(training) == 3 and len(testing) == 2
    read = [[batch.tolist() for batch in loader] for loader in (training, training, testing)]
    return *read, float(torch.rand(()))


def test_ranks_read_disjoint_parts_and_draw_their_own_noise():
    (first, second, tested, noise), (first_other, second_other, tested_other, noise_other) = on_two(epochs)
    for own, other in ((first, first_other), (second, second_other)):
        assert [len(batch) for batch in own + other] == [2] * 6
        assert len(set(chain(*own, *other))) == 12
    assert first != second and noise != noise_other
    assert list(chain(*tested, *tested_other)) == list(range(14))


@pytest.fixture(scope="module")
def student() -> SplitClassifier:
    torch.manual_seed(0)
    backbone = {"name": "resnet18", "layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "num_classes": 10}
    backbone["pretrained_cfg_overlay"] = {"input_size": [3, 64, 64]}
    decoder = ResNetDecoder(width=8, out_channels=16, depth=1, bottleneck=False)
    student = create_split_classifier(ResidualEncoder(), FactorizedPrior(), decoder, backbone)
    student.update()
    return student


def results(ranks: Ranks, student: SplitClassifier, batch_size: int) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(7, 3, 64, 64, generator=generator), torch.randint(10, (7,), generator=generator)
    images = TensorDataset(x, labels)
    batches = SomeBatches(SequentialSampler(images), ranks, batch_size)
    loader = DataLoader(images, batch_sampler=batches)
    rounded = validate(student, loader, CPU, ranks)
    return [
        rounded,
        evaluate_classifier(student, loader, CPU, "", ranks),
        evaluate_student(student, loader, CPU, ranks),
    ]


@pytest.mark.parametrize("batch_size", [2, 10])
def test_an_odd_number_of_images_gives_the_results_of_one_rank(student, batch_size):
    one = results(ALONE, student, batch_size)
    first, second = on_two(results, student, batch_size)
    assert first == second and first[1:] == one[1:] and one[2]["images"] == 7
    assert first[0] == pytest.approx(one[0], rel=1e-12)


def broadcast(ranks: Ranks, student: SplitClassifier) -> list[torch.Tensor]:
    torch.manual_seed(ranks.rank)
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor += ranks.rank
    ranks.broadcast(student, nn.Sequential(student.encoder, adaptation := nn.Conv2d(2, 2, 1)))
    parts = ranks.gather([float(adaptation.weight.detach().sum())])
    assert parts[0] == parts[1]
    return [tensor.numpy() for tensor in student.state_dict().values()]


def test_models_are_broadcast_from_the_first_rank(student):
    wanted = [tensor.clone().numpy() for tensor in student.state_dict().values()]
    for state in on_two(broadcast, student):
        assert all((tensor == other).all() for tensor, other in zip(state, wanted, strict=True))


def test_a_process_without_a_rank_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with joined_ranks() as ranks:
        assert ranks is ALONE


ORPHAN = "import os; from misc.distributed.ranks import exit_with_parent as end; print(flush=True); end(os.getppid())"
PARENT = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {ORPHAN!r}], stdout=subprocess.PIPE).stdout.readline()
"""


def test_a_rank_ends_with_the_process_that_started_it():
    # It inherits stderr, so `run` returns only when it has ended.
    subprocess.run([sys.executable, "-c", PARENT], cwd=ROOT, capture_output=True, timeout=60, check=True)


def step(ranks: Ranks) -> None:
    loss = torch.tensor(float("nan") if ranks.rank else 1.0)
    box = SimpleNamespace(forward_process=lambda *_: loss)
    one = TrainingStep(box, nn.Identity(), CPU, ranks)
    one.loss_terms["rate"] = float(loss)
    one.take(torch.zeros(1), torch.zeros(1), {}, "stage 1, epoch 1, step 1")


def user_error(ranks: Ranks) -> None:
    if not ranks.first:
        print("not shown")
        raise UserError("image 3 is broken")
    ranks.wait()


def bug(ranks: Ranks) -> None:
    print("shown by", ranks.rank, flush=True)  # a terminated process flushes nothing
    if not ranks.first:
        raise ZeroDivisionError
    ranks.wait()


def killed(ranks: Ranks) -> None:
    if not ranks.first:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (step, "error: the loss is not finite in stage 1, epoch 1, step 1 (rate nan): lower"),
        (user_error, "error: image 3 is broken"),
        (bug, "ZeroDivisionError"),
        (killed, "error: another process has ended or does not answer; torchrun says below which"),
    ],
)
def test_a_rank_that_ends_ends_all_and_one_says_why(capfd, caplog, function, line):
    start = time.monotonic()
    with pytest.raises(ChildFailedError):
        on_two(function)
    assert time.monotonic() - start < PATIENCE.total_seconds() / 2
    out, err = capfd.readouterr()
    # In some releases of torch the process prints its traceback, in others torchrun logs it.
    assert line in (err + caplog.text if function is bug else err)
    assert err.count("error: ") == line.count("error: ")
    assert out.split() == (["shown", "by", "0"] if function is bug else [])
