"""End to end at the smallest size: maps, two training stages, test through bytes; and users' mistakes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  slow to import: not within a test
from torchdistill.core.distillation import DistillationBox
from torchdistill.models.registry import get_model

from main_classification_torchdistill import get_argparser, main
from misc.config import load_config
from misc.datasets.digits import write_data_set
from misc.distributed.launch import in_processes
from misc.files import ROOT
from misc.training import loop as training
from misc.training.step import TrainingStep
from model.classifier import create_timm_model
from model.split import SplitClassifier, load_into
from model.weights import read_facts, save_weights
from saliency_maps.cam_prep.cam_map_generation import main as make_maps
from scripts.benchmarks.ranks import measure

ARCHITECTURES = {
    "resnet": {"name": "resnet18", "layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]},
    "swin": {
        "name": "swin_tiny_patch4_window7_224",
        "img_size": 64,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 4, 4],
    },
}
DECODERS = {
    "resnet": "{width: 8, out_channels: 16, depth: 1, bottleneck: false}",
    "swin": "{width: 16, out_channels: 64, feature_size: 8, window_size: 4, num_heads: [2, 4]}",
}
NO_DATA = """
datasets:
  none: null
test:
  test_data_loader:
    dataset_id: none
    sampler: {class_or_func: !import_get {key: torch.utils.data.SequentialSampler}}
    kwargs: {}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A data set of 40 and 20 images and random teachers."""
    root = tmp_path_factory.mktemp("workspace")
    write_data_set(root / "digits", num_train=40, num_val=20)
    torch.manual_seed(0)
    for backbone, arguments in ARCHITECTURES.items():
        save_weights(create_timm_model(**arguments, num_classes=10), root / f"{backbone}.safetensors")
    return root


def arguments_of(backbone: str, workspace: Path) -> dict:
    """Return the keyword arguments of `create_backbone`."""
    return {
        **ARCHITECTURES[backbone],
        "num_classes": 10,
        "pretrained_cfg_overlay": {"input_size": [3, 64, 64]},
        "weights_path": str(workspace / f"{backbone}.safetensors"),
    }


@pytest.fixture
def command(workspace) -> Callable[..., list[str]]:
    """Build the command line of a quickstart config, whose name contains its backbone, on the small workspace."""

    def build(name: str, *more: str) -> list[str]:
        backbone = name.split("_")[1]
        arguments = arguments_of(backbone, workspace)
        settings = {
            "dataset_root": workspace / "digits",
            "batch_size": 20,
            "models.student_model.kwargs.decoder.init.kwargs": DECODERS[backbone],
            "models.teacher_model.kwargs": json.dumps(arguments),
            "models.student_model.kwargs.backbone": json.dumps(arguments),
        }
        if name.startswith("sg"):
            settings["map_root"] = workspace / f"maps_{backbone}"
        flat = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["--config", str(ROOT / f"config/quickstart/{name}.yaml"), "--device", "cpu", *flat, *more]

    return build


def one_epoch(*stages: int) -> list[str]:
    return [part for stage in stages for part in ("--set", f"train.stage{stage}.num_epochs=1")]


@pytest.fixture(scope="module")
def resnet_maps(workspace) -> Path:
    teacher = {"key": "timm_backbone", "kwargs": arguments_of("resnet", workspace)}
    config = workspace / "teacher.yaml"
    base = yaml.safe_dump({"models": {"teacher_model": teacher}})
    config.write_text(base + NO_DATA)
    output = workspace / "maps_resnet"
    folders = ["--config", str(config), "--input", str(workspace / "digits" / "train"), "--output", str(output)]
    flags = ["--eigen_smooth", "--mix_layers", "--patch_cam", "--target_dim", "8", "--num_workers", "0"]
    make_maps([*folders, "--device", "cpu", *flags])
    return output


def test_two_stages_with_maps_train_and_test_through_bytes(command, resnet_maps, tmp_path, capsys):
    run = tmp_path / "run"
    main([*command("sg_resnet", "--skip_ckpt", "--run_dir", str(run)), *one_epoch(1, 2)])
    printed = capsys.readouterr().out
    for wanted in ("Training on cpu", "teacher top-1 / top-5", "predictive loss", "everything sent", "encoder"):
        assert wanted in printed
    assert {"config.resolved.yaml", "run.json", "log.txt", "events", "weights.safetensors"} <= {
        path.name for path in run.iterdir()
    }
    trained = json.loads((run / "test.json").read_text())
    student = trained["student"]
    assert student["images"] == 20 and student["edge_parameters"] == 141_696
    assert student["sent_kb"] * 1024 == pytest.approx(student["strings_kb"] * 1024 + 11, abs=1e-6)
    assert trained["predictive_loss"] == trained["teacher"]["top1"] - student["top1"]
    facts = read_facts(run / "weights.safetensors")
    assert "tail_sha256" in facts  # training left the tail as it was
    assert facts["backbone"] == "resnet18"

    main([*command("sg_resnet", "--test_only", "--run_dir", str(run))])
    assert json.loads((run / "test.json").read_text())["student"] == student

    main(
        [
            *command(
                "sg_resnet", "--test_only", "--run_dir", str(run), "--set", "test.test_data_loader.kwargs.batch_size=1"
            )
        ]
    )
    assert json.loads((run / "test.json").read_text())["student"] == pytest.approx(student)


def test_swin_and_phd_train_and_an_earlier_run_is_moved_aside(command, tmp_path, capsys):
    run = tmp_path / "run"
    for _ in range(2):
        main([*command("phd_swin", "--skip_ckpt", "--run_dir", str(run)), *one_epoch(1)])
    assert "The earlier run was moved to" in capsys.readouterr().out
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("run")]) == 2


def test_a_hyperprior_trains_and_counts_its_networks_as_the_edge(command, tmp_path):
    run = tmp_path / "run"
    main([*command("phd_resnet_hyperprior", "--skip_ckpt", "--run_dir", str(run)), *one_epoch(1)])
    student = json.loads((run / "test.json").read_text())["student"]
    assert student["edge_parameters"] > 141_696 and student["bpp_bytes"] > 0


def test_one_model_of_every_rate_trains_prints_its_curve_and_is_fine_tuned(command, tmp_path, capsys):
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    arguments = command("variable_resnet", "--run_dir", str(run))
    main([*arguments, "--skip_ckpt", *one_epoch(1)])
    assert "rate    lmbda  bytes sent     top-1  predictive loss, 95 % interval\n" in capsys.readouterr().out
    tested = json.loads((run / "test.json").read_text())
    levels = tested["levels"]
    assert [round(row["lmbda"], 6) for row in levels] == [0.4, 0.2, 0.1, 0.05, 0.025]
    assert [row["rate"] for row in levels] == [0, 0.25, 0.5, 0.75, 1]
    assert tested["student"] == levels[2]
    assert not any("hits" in row for row in [*levels, tested["teacher"]])
    assert levels[0]["sent_kb"] < levels[4]["sent_kb"]
    assert levels[0]["sent_kb"] * 1024 == pytest.approx(levels[0]["strings_kb"] * 1024 + 12, abs=1e-6)
    assert all(row["predictive_loss"] == tested["teacher"]["top1"] - row["top1"] for row in levels)

    main([*arguments, "--test_only", "--rate", "0.75", "--student_only"])
    one = json.loads((run / "test.json").read_text())
    assert "levels" not in one and one["student"]["sent_kb"] == levels[3]["sent_kb"]

    levels = "models.student_model.kwargs.entropy_model.init.kwargs.levels=[0.4, 0.2, 0.1, 0.05, 0.025]"
    key = "models.student_model.kwargs.entropy_model.key=model.entropy.Checkerboard"
    start = f"models.student_model.kwargs.trained_parts.weights_path={run / 'weights.safetensors'}"
    settings = [part for value in (levels, key, start) for part in ("--set", value)]
    main([*command("finetune_resnet", "--skip_ckpt", "--run_dir", str(tuned)), *settings, *one_epoch(1)])
    found = json.loads((tuned / "test.json").read_text())["levels"]
    assert [row["sent_kb"] for row in found] == [row["sent_kb"] for row in tested["levels"]]


def test_a_rate_for_a_student_of_one_rate_is_one_line(command, tmp_path, capsys):
    run = tmp_path / "run"
    main([*command("phd_resnet", "--skip_ckpt", "--run_dir", str(run), "--student_only"), *one_epoch(1)])
    capsys.readouterr()
    assert "one rate" in failure(capsys, command("phd_resnet", "--test_only", "--run_dir", str(run), "--rate", "0.5"))


def test_a_context_model_trains_two_stages(command, resnet_maps, tmp_path):
    """CompressAI's masked convolution replaces its weights in the forward pass, also while a stage is validated."""
    main([*command("sg_resnet_hyperprior", "--skip_ckpt", "--run_dir", str(tmp_path / "run")), *one_epoch(1, 2)])


def test_a_classifier_trains_alone_and_continues_from_its_weights(workspace, tmp_path, capsys):
    settings = {
        "dataset_root": workspace / "digits",
        "train.num_epochs": 1,
        "train.train_data_loader.kwargs.batch_size": 20,
    }
    flat = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    arguments = [
        "--config",
        str(ROOT / "config/quickstart/teacher_resnet.yaml"),
        *flat,
        "--run_dir",
        str(tmp_path / "run"),
    ]
    main(arguments)
    assert "Weights:" not in capsys.readouterr().out.split("Training on")[0]
    main(arguments)
    assert "Weights:" in capsys.readouterr().out.split("Training on")[0]
    assert json.loads((tmp_path / "run" / "test.json").read_text())["model"]["images"] == 20
    assert "val_top1" in read_facts(tmp_path / "run" / "weights.safetensors")
    cycle = "train.scheduler.kwargs={max_lr: 0.003, total_steps: 3}"
    line = failure(capsys, [*arguments, "--set", cycle])
    assert "stage 1 takes 2 scheduler steps, its scheduler is set up for 3" in line


def test_same_seed_gives_the_same_weights(command, tmp_path):
    for name in ("a", "b"):
        run = str(tmp_path / name)
        main([*command("phd_resnet", "--skip_ckpt", "--run_dir", run, "--student_only"), *one_epoch(1)])
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("a", "b"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class Killed(BaseException):
    """Ends a run immediately, as a signal would."""


def kill_at(monkeypatch, kind: type, name: str, calls: int) -> None:
    """Make a method end the run when it is called for the nth time, before it does anything."""
    method, counted = getattr(kind, name), []

    def counting(*args, **kwargs):
        counted.append(name)
        if len(counted) == calls:
            raise Killed
        return method(*args, **kwargs)

    monkeypatch.setattr(kind, name, counting)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_killed_run_resumes_to_the_same_bits(command, resnet_maps, tmp_path, capsys, monkeypatch, workers):
    loader = [f"train.stage{stage}.train_data_loader.kwargs" for stage in (1, 2)]
    settings = [f"{loader[0]}.num_workers={workers}", f"{loader[0]}.persistent_workers={bool(workers)}"]
    settings += [f"{loader[1]}={{batch_size: 20, num_workers: 0, drop_last: true}}"]
    settings += ["train.stage1.num_epochs=2", "train.stage2.num_epochs=2", "train.stage1.rate_warmup=0.9"]
    settings += ["train.stage1.bn_momentum=0.05"]
    more = [part for setting in settings for part in ("--set", setting)]

    def arguments(name: str) -> list[str]:
        return [*command("sg_resnet", "--skip_ckpt", "--resume", "--run_dir", str(tmp_path / name)), *more]

    main(arguments("whole"))
    assert "resumed at" not in capsys.readouterr().out
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
    # Before the first step; in the middle of the second epoch; in stage 2, before a step and after the validation.
    steps, validations = (TrainingStep, "take"), (training.TrainingLoop, "keep_best")
    for method, call in ((steps, 1), (steps, 4), (steps, 2), (validations, 1)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, *method, call)
            main(arguments("killed"))
    main(arguments("killed"))
    printed = capsys.readouterr().out
    assert "resumed at stage 1, epoch 1, step 1" in printed and "resumed at stage 1, epoch 2, step 2" in printed
    assert "resumed at stage 2, epoch 1, step 1" in printed and "resumed at stage 2, epoch 1, step 2" in printed
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    rows = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    for one, other in zip(*(map(json.loads, lines) for lines in rows), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert not list((tmp_path / "killed").glob("checkpoint*"))

    main(arguments("killed"))  # the run has ended, so it is only tested
    assert "resumed at" not in capsys.readouterr().out
    line = failure(capsys, [*arguments("killed"), "--set", "lmbda=9"])
    assert "--resume needs the same config: line" in line and "9" in line
    line = failure(capsys, [*arguments("killed"), "--seed", "1"])
    assert "the run has 0, now it is 1" in line


def test_two_trainings_in_one_folder_are_refused(command, tmp_path, capsys):
    hold = f"with locked(Path({str(tmp_path / '.run.lock')!r}), ''): print(flush=True); time.sleep(60)"
    code = f"import time; from pathlib import Path; from misc.files import locked\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        line = failure(capsys, command("phd_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run")))
        first.kill()
    assert f"another process trains in {tmp_path / 'run'}: wait for it" in line and not (tmp_path / "run").exists()


def in_two_processes(arguments: list[str]) -> subprocess.CompletedProcess:
    """Run the command under torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = str(ROOT / "main_classification_torchdistill.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, script, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def table_of(printed: str) -> list[str]:
    """Return the rows of the test's table without its times."""
    rows = printed.split("Test on")[1].split("Results")[0].splitlines()
    return [row for row in rows if "encode / decode" not in row]


def test_two_processes_train_in_one_folder_and_test_like_a_single_one(command, tmp_path, capsys):
    run, loader = tmp_path / "run", "train.stage1.train_data_loader.kwargs"
    settings = [f"{loader}={{batch_size: 20, num_workers: 0, drop_last: true}}", "train.stage1.num_epochs=2"]
    settings += ["test.test_data_loader.kwargs={batch_size: 7, num_workers: 0}"]
    settings += ["train.stage1.val_data_loader.kwargs={batch_size: 7, num_workers: 0}"]
    arguments = command("phd_resnet", "--run_dir", str(run), *(part for one in settings for part in ("--set", one)))
    done = in_two_processes([*arguments, "--skip_ckpt", "--resume"])
    assert done.returncode == 0, done.stderr
    assert "Training on cpu in 2 processes" in done.stdout
    assert (
        done.stdout.count("Training on") == done.stdout.count("stage 1 epoch 2/2") == done.stdout.count("Test on") == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len((run / "history.jsonl").read_text().splitlines()) == 2
    assert len(list((run / "events").iterdir())) == 1 and not list(run.glob("checkpoint*"))
    shared = json.loads((run / "test.json").read_text())

    main([*arguments, "--test_only"])
    alone = json.loads((run / "test.json").read_text())
    assert table_of(done.stdout) == table_of(capsys.readouterr().out)
    assert all(
        shared[name] == alone[name] for name in ("teacher", "student", "predictive_loss", "predictive_loss_margin")
    )


def test_a_batch_that_cannot_be_divided_among_processes_is_one_line(command, tmp_path, capfd):
    arguments = command("phd_resnet", "--run_dir", str(tmp_path / "run"), "--set", "batch_size=15")
    with pytest.raises(ChildFailedError):
        in_processes(2, main, arguments, start_method="fork")
    out, err = capfd.readouterr()
    assert "error: stage 1, train_data_loader: batch_size is of the whole batch" in err and err.count("error: ") == 1
    assert not out and not (tmp_path / "run").exists()


def main_until_killed(arguments: list[str], step: int) -> None:
    """Run the command and kill the second rank before a step."""
    take, taken = TrainingStep.take, []

    def counting(self: TrainingStep, *args) -> float:
        taken.append(step)
        if len(taken) == step and not self.ranks.first:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, *args)

    TrainingStep.take = counting
    training.CHECKPOINT_EVERY = 0
    main(arguments)


def test_a_killed_rank_ends_the_run_which_resumes_to_the_same_bits(command, tmp_path, capfd):
    loader = "train.stage1.train_data_loader.kwargs"
    settings = [f"{loader}={{batch_size: 10, num_workers: 1, drop_last: true}}", "train.stage1.num_epochs=1"]
    settings += ["train.stage1.val_data_loader.kwargs={batch_size: 9}", "test.test_data_loader.kwargs={batch_size: 9}"]
    # The stage adds a module behind the decoder: it must be equal on both ranks, and be restored.
    regressor = "{num_input_channels: 16, num_output_channels: 16, kernel_size: 1, stride: 1, padding: 0}"
    settings += [
        "train.stage1.student={forward_proc: forward_batch_only,"
        " sequential: [encoder, entropy_model, decoder, +regressor],"
        f" adaptations: {{regressor: {{key: ConvReg, kwargs: {regressor}}}}},"
        " forward_hook: {output: [entropy_model.codec, +regressor]}}",
        "train.stage1.criterion.kwargs.sub_terms.distortion.criterion_wrapper.kwargs.input.module_path=+regressor",
        "train.stage1.rate_warmup=1.0",
    ]
    more = ["--skip_ckpt", "--resume", "--student_only", *(part for one in settings for part in ("--set", one))]
    whole, killed = (command("phd_resnet", "--run_dir", str(tmp_path / name), *more) for name in ("whole", "killed"))
    in_processes(2, main, whole, start_method="fork")
    with pytest.raises(ChildFailedError):
        in_processes(2, main_until_killed, killed, 3, start_method="fork")
    capfd.readouterr()
    assert "--resume needs the same number of processes: the run has 2, now there are 1" in failure(capfd, killed)
    in_processes(2, main, killed, start_method="fork")
    assert "resumed at stage 1, epoch 1, step 3" in capfd.readouterr().out
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


MEANS = """
train:
  stage1:
    student:
      forward_hook: {input: [encoder]}
    criterion:
      kwargs:
        sub_terms:
          mean_distortion:
            criterion: {key: MSELoss, kwargs: {}}
            criterion_wrapper:
              key: SimpleLossWrapper
              kwargs:
                input: {is_from_teacher: false, module_path: decoder, io: output}
                target: {is_from_teacher: true, module_path: head, io: output}
            weight: 1.0e+5
          bits_per_pixel:
            criterion: {key: BppLoss, kwargs: {}}
            weight: 1.0e+4
"""


def test_two_processes_have_the_gradients_of_one(command, tmp_path):
    """Besides distortion and rate, which sum over the batch, the loss has means of about the same weight."""
    (tmp_path / "means.yaml").write_text(MEANS)
    config = tmp_path / "sums_and_means.yaml"
    config.write_text(f"base: [{ROOT}/config/quickstart/phd_resnet_hyperprior.yaml, means.yaml]")
    settings = [value for flag, value in pairwise(command("phd_resnet_hyperprior")) if flag == "--set"]
    one = measure(str(config), settings, "cpu", 1)
    first, second = in_processes(2, measure, str(config), settings, "cpu", 1, start_method="fork")
    assert np.array_equal(first.gradients, second.gradients)
    assert np.abs(first.gradients - one.gradients).max() < 1e-5 * np.abs(one.gradients).max()


def test_stage_one_sends_no_gradient_to_the_tail_and_none_of_the_loss_to_the_quantiles(command, tmp_path, monkeypatch):
    forward, steps = DistillationBox.forward_process, []

    def watched(box: DistillationBox, *args, **kwargs) -> torch.Tensor:
        loss = forward(box, *args, **kwargs)
        named = [*box.org_student_model.named_parameters()]
        gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True, retain_graph=True)
        reached = {name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None}
        assert {name.split(".")[0] for name in reached} == {"encoder", "entropy_model", "decoder"}
        assert not any(name.endswith("quantiles") for name in reached)
        assert not any(p.requires_grad for p in box.teacher_model.parameters())
        steps.append(reached)
        return loss

    monkeypatch.setattr(DistillationBox, "forward_process", watched)
    main([*command("phd_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run"), "--student_only"), *one_epoch(1)])
    assert len(steps) == 2


def test_an_encoder_serves_another_backbone_unchanged_and_its_streams_decode(command, tmp_path):
    first, second = tmp_path / "resnet", tmp_path / "swin"
    main([*command("phd_resnet", "--skip_ckpt", "--run_dir", str(first), "--student_only"), *one_epoch(1)])
    parts = f"models.student_model.kwargs.trained_parts.weights_path={first / 'weights.safetensors'}"
    reuse = command("reuse_swin_from_resnet", "--skip_ckpt", "--run_dir", str(second), "--set", parts)
    main([*reuse, "--student_only", *one_epoch(1)])
    before, after = (load_file(run / "weights.safetensors") for run in (first, second))
    frozen = [name for name in before if name.startswith(("encoder.", "entropy_model."))]
    assert len(frozen) > 20 and all(torch.equal(before[name], after[name]) for name in frozen)

    x = torch.randn(4, 3, 64, 64)
    streams = student_of(command("phd_resnet"), first).encode(x)
    other = student_of(reuse, second)
    assert other.encode(x) == streams
    with torch.no_grad():
        assert torch.equal(other.decode(streams), other(x))


def test_fine_tuning_moves_decoder_and_tail_alone(command, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    main([*command("phd_resnet", "--skip_ckpt", "--run_dir", str(first), "--student_only"), *one_epoch(1)])
    start = f"models.student_model.kwargs.trained_parts.weights_path={first / 'weights.safetensors'}"
    arguments = [*command("finetune_resnet", "--run_dir", str(second), "--set", start), *one_epoch(1)]
    arguments += ["--set", "train.stage1.optimizer.kwargs.lr=0.1"]
    main([*arguments, "--skip_ckpt"])
    before, after = (load_file(run / "weights.safetensors") for run in (first, second))
    assert any(name.startswith("tail.") for name in after)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"}
    tuned, teacher = student_of(arguments, second), student_of(arguments, first)
    assert not torch.equal(tuned.tail.fc.weight, teacher.tail.fc.weight)
    x = torch.randn(2, 3, 64, 64)
    assert tuned.encode(x) == teacher.encode(x)
    capsys.readouterr()
    line = failure(capsys, [*arguments, "--set", "train.stage1.optimizer.module_wise_configs.0.module=decodr"])
    assert "no module 'decodr'; did you mean 'decoder'" in line
    (first / "weights.safetensors").unlink()
    main([*arguments, "--test_only"])
    main(arguments)  # continues from its own weights, whose tail is no longer the teacher's


def student_of(arguments: list[str], run: Path) -> SplitClassifier:
    """Build the student of a command line with the weights of a run."""
    overrides = [value for flag, value in pairwise(arguments) if flag == "--set"]
    entry = load_config(arguments[1], overrides, "test").data["models"]["student_model"]
    student = get_model(entry["key"], **entry["kwargs"]).eval()
    load_into(student, run / "weights.safetensors")
    return student


def failure(capsys, arguments: list[str]) -> str:
    """Run a command that must end with exit code 2 and one line on stderr; return the line."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "images/s" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "lmda=0.1"], "did you mean 'lmbda'"),
        (["--set", "train.stage1.num_epoch=3"], "did you mean 'num_epochs'"),
        (["--set", "train.stage1.num_epochs=many"], "type"),
        (["--set", "models.teacher_model.kwargs.name=resnet81"], "did you mean"),
        (["--set", "dataset_root=/proc/digits"], "/proc/digits"),
        (["--set", "models.teacher_model.kwargs.weights_path=/nowhere/w.safetensors"], "no weights at /nowhere"),
        (["--device", "cuda:99"], "CUDA devices here"),
        (["--config", "config/quickstart/sg_resnett.yaml"], "no such file"),
        (["--set", "train.stage1.autocast=float61"], "float61"),
        (["--set", "train.stage1.student.forward_hook.output=[entropy.codec]"], "no module 'entropy.codec'"),
        (["--set", "models.teacher_model.kwargs.weights_path=null"], "untrained"),
        (["--set", "models.teacher_model.kwargs.layers=[1, 1, 1, one]"], "timm model 'resnet18'"),
        (["--set", "batch_size=64"], "no step to take"),
        (["--set", "models.student_model.kwargs.trained_parts={modules: [encoder]}"], "needs weights_path and modules"),
        (["--set", "train.stage1.optimizer.key=Adm"], "unknown name 'Adm'; did you mean 'Adam'?"),
        (["--set", "train.stage1.optimizer.kwargs={lrr: 0.1}"], "Adam has no argument 'lrr'; did you mean 'lr'?"),
        (
            ["--set", "train.stage1.optimizer.max_grad_norm=none"],
            "'none' (str) would change the type of '10.0' (float)",
        ),
        (["--set", "train.stage1.scheduler.key=CosineAnealingLR"], "did you mean 'CosineAnnealingLR'?"),
        (["--set", "train.stage1.criterion.kwargs.sub_terms.rate.criterion.key=RateLos"], "did you mean 'RateLoss'?"),
        (["--set", "train.stage1.criterion.key=WeightedSumLos"], "did you mean 'WeightedSumLoss'?"),
        (["--set", "train.stage1.student.forward_proc=forward_batch"], "did you mean 'forward_batch_only'?"),
        (["--set", "train.stage1.student.sequential=[encoder, entropy, decoder]"], "no module 'entropy'"),
        (["--set", "train.stage1.student.frozen_modules=[tial]"], "no module 'tial'; did you mean 'tail'?"),
        (["--set", "train.stage1.num_epochs=0"], "must be positive, not 0"),
        (["--set", "train.stage1.teacher.requires_grad=maybe"], "would change the type of 'false' (bool)"),
        (["--set", "train.stage1.train_data_loader.dataset_id=trainn"], "no data set 'trainn'; did you mean 'train'?"),
        (
            ["--set", "train.stage1.train_data_loader.kwargs.num_workers=-1"],
            "num_workers option should be non-negative",
        ),
        (["--set", "train.stage1.train_data_loader.kwargs.shufle=true"], "has no 'shufle'"),
        (["--set", "test.test_data_loader.kwargs.num_workers=-1"], "test, test_data_loader: num_workers option"),
        (["--set", "test.test_data_loader.dataset_id=vall"], "no data set 'vall'; did you mean 'val'?"),
        (["--set", "datasets.val.key=misc.datasets.image_folder.ImageFoldr"], "did you mean 'ImageFolder'?"),
        (
            ["--set", "models.student_model.kwargs.entropy_model.key=model.entropy.FactorisedPrior"],
            "did you mean 'FactorizedPrior'?",
        ),
        (
            ["--set", "models.student_model.kwargs.entropy_model.key=model.entropi.FactorizedPrior"],
            "cannot import module 'model.entropi'",
        ),
        (
            ["--set", "models.student_model.kwargs.decoder.init.kwargs.out_channels=17"],
            "change the decoder's out_channels",
        ),
        (["--set", "models.student_model.key=split_clasifier"], "did you mean 'split_classifier'?"),
        (
            ["--set", "models.student_model.kwargs.trained_parts={weights_path: x.pt, modules: [encodr]}"],
            "did you mean 'encoder'?",
        ),
        (["--set", "models.teacher_model.kwargs.num_classes=12"], "2 of another shape (fc.weight, fc.bias)"),
        (["--set", "models.teacher_model.kwargs.weights_path=README.md"], "is not a weights file"),
        (["--set", "lmbda=much"], "'much' (str) would change the type of '0.05' (float)"),
        (["--set", "lmbda"], "write --set path=value"),
    ],
)
def test_mistakes_are_one_line_and_stop_before_training(command, tmp_path, capsys, more, message):
    line = failure(capsys, [*command("phd_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run")), *more])
    assert message in line
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_named(command, workspace, tmp_path, capsys):
    wrong = str(workspace / "swin.safetensors")
    line = failure(capsys, [*command("phd_resnet"), "--set", f"models.teacher_model.kwargs.weights_path={wrong}"])
    assert "does not fit resnet18" in line and "missing" in line and "conv1.weight" in line


def test_missing_maps_are_counted_and_named(command, resnet_maps, tmp_path, capsys):
    victim = next(resnet_maps.rglob("*.npy"))
    kept = victim.read_bytes()
    victim.unlink()
    try:
        line = failure(capsys, command("sg_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run")))
    finally:
        victim.write_bytes(kept)
    assert "1 of 40" in line and victim.stem in line


def test_nothing_to_test_is_an_error(command, tmp_path, capsys):
    line = failure(capsys, command("phd_resnet", "--test_only", "--run_dir", str(tmp_path / "run")))
    assert "no weights at" in line
    line = failure(capsys, command("phd_resnet", "--test_only", "--skip_ckpt"))
    assert "random weights" in line


def test_a_truncated_training_image_is_named_before_training(command, workspace, tmp_path, capsys):
    victim = workspace / "digits" / "train" / "3" / "extra.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(victim)
    victim.write_bytes(victim.read_bytes()[:500])
    try:
        line = failure(capsys, command("phd_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run")))
    finally:
        victim.unlink()
    assert "extra.jpg" in line and "truncated" in line


def test_a_loss_that_is_not_finite_stops_with_its_terms(command, tmp_path, capsys):
    arguments = command("phd_resnet", "--skip_ckpt", "--run_dir", str(tmp_path / "run"))
    line = failure(capsys, [*arguments, "--set", "train.stage1.optimizer.kwargs.lr=1.0e+30"])
    assert "not finite in stage 1, epoch" in line and "distortion" in line and "rate" in line


def test_the_command_line_is_frozen():
    flags = {flag for action in get_argparser()._actions for flag in action.option_strings}
    assert flags == {"-h", "--help", "--config", "--set", "--device", "--seed", "--run_dir", "--test_only"} | {
        "--skip_ckpt",
        "--student_only",
        "--log_config",
        "--dry_run",
        "--resume",
        "--rate",
        "--results",
    }


@pytest.mark.parametrize(
    "setting",
    [
        "models.student_model.src_ckpt=PLANTED",
        "models.teacher_model.kwargs.weights_path=PLANTED",
        "models.student_model.kwargs.backbone.weights_path=PLANTED",
        "models.student_model.kwargs.trained_parts={weights_path: PLANTED, modules: [encoder]}",
    ],
)
def test_no_file_that_a_config_names_can_run_code(command, tmp_path, capsys, setting):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"model": Planted()}, tmp_path / "planted.pt")
    more = ["--run_dir", str(tmp_path / "run"), "--set", setting.replace("PLANTED", str(tmp_path / "planted.pt"))]
    assert "planted.pt is not a weights file" in failure(capsys, [*command("phd_resnet"), *more])
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


def test_torchdistills_own_loader_of_checkpoints_is_out_of_reach(command, tmp_path, capsys):
    for key in ("src_ckpt", "dst_ckpt"):
        config = tmp_path / f"{key}.yaml"
        student = {"forward_proc": "forward_batch_only", "sequential": ["encoder"], key: str(tmp_path / "planted.pt")}
        base = str(ROOT / "config/quickstart/phd_resnet.yaml")
        config.write_text(yaml.safe_dump({"base": [base], "set": {"train.stage1.student": student}}))
        line = failure(capsys, ["--config", str(config), "--device", "cpu", "--run_dir", str(tmp_path / "run")])
        assert f"train.stage1.student.{key}: unknown key" in line
