"""Trains and tests classifiers and split classifiers from a YAML config, through torchdistill.

`torchrun --nproc_per_node N` in place of `python` shares every batch among N processes, with CUDA among N GPUs.
"""

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.common.main_util import set_seed

from misc.atomic import write_atomically
from misc.checkpoint import read_checkpoint
from misc.config import load_config
from misc.config_validation import Mode
from misc.cores import share_cores
from misc.device import default_device, usable_device
from misc.dry_run import dry_run, without_weights
from misc.errors import UserError, exit_on_user_error
from misc.evaluation import latency, results_table, test_classifier, test_loader, test_student
from misc.lock import locked
from misc.models import build_model
from misc.ranks import Ranks, joined_ranks, local_rank
from misc.run_folder import CONFIG, check_resumable, default_run_dir, provenance, resume_run, start_run
from misc.training import WEIGHTS, check_shares, check_tails, check_training, train
from misc.weights import load_into
from model.split import SplitClassifier, check_trained_parts


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="what to train and test (see config/README.md)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data order and noise (default: %(default)s)")
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="default: resources/runs/ plus the config's path")
    parser.add_argument("--test_only", action="store_true", help="test the run's weights, or the config's src_ckpt")
    parser.add_argument("--skip_ckpt", action="store_true", help="train from scratch, not from existing weights")
    parser.add_argument("--resume", action="store_true", help="go on with a killed run, or begin where there is none")
    parser.add_argument("--student_only", action="store_true", help="leave the teacher out of the test")
    parser.add_argument(
        "--dry_run", action="store_true", help="try the config on random weights and images, at full size"
    )
    parser.add_argument("--log_config", action="store_true", help="print the resolved config")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    run_dir = args.run_dir or default_run_dir(args.config)
    with joined_ranks() as ranks, held(run_dir) if ranks.first and trains(args) else nullcontext():
        run(args, run_dir, ranks)


def trains(args: argparse.Namespace) -> bool:
    return not (args.test_only or args.dry_run)


def held(run_dir: Path) -> AbstractContextManager[None]:
    """Keeps other trainings out of a run folder; the lock lies beside it, as the folder may be moved aside."""
    busy = f"another process trains in {run_dir}: wait for it or choose another --run_dir"
    return locked(run_dir.absolute().with_name(f".{run_dir.name}.lock"), busy)


def run(args: argparse.Namespace, run_dir: Path, ranks: Ranks) -> None:
    """Does what the arguments say, together with the other ranks."""
    device = own_device(args.device, ranks)
    share_cores()
    set_seed(args.seed)
    mode = mode_of(args, ranks)
    with ranks.first_ahead():
        config = load_config(args.config, args.set, mode)
    if args.log_config:
        print(config.resolved)
    if args.dry_run:
        return try_out(config.data, device, args.seed)
    if trains(args):
        check_shares(config.data, ranks)
    check_teacher(config.data["models"].get("teacher_model"))
    entry = trained_entry(config.data["models"])
    checkpoint = None
    if args.resume:
        checkpoint = ranks.from_first(lambda: find_checkpoint(run_dir, config.resolved, args.seed, ranks))
    is_finished = args.test_only or (args.resume and checkpoint is None and (run_dir / WEIGHTS).is_file())
    needs_none = checkpoint is not None or (args.skip_ckpt and not is_finished)
    weights = None if needs_none else find_weights(entry, run_dir, args.test_only)
    if weights is not None or checkpoint is not None:
        entry.get("kwargs", {}).pop("trained_parts", None)  # they would be overwritten, and their file may be gone
    models = {name: build_model(name, entry, device) for name, entry in config.data["models"].items()}
    check_tails(models)
    if weights is not None:
        load_into(trained_model(models), weights)
        print(f"Weights: {weights}")
    origin = provenance(args.seed)
    if not is_finished:
        check_training(config.data, models)
        ranks.wait()  # for those that still look into the run folder
        if ranks.first:
            open_run(run_dir, config.resolved, args.seed, checkpoint)
        else:
            set_seed(ranks.seed(args.seed))  # up to here the same, for the same weights
        print(f"Training on {where(device, ranks)} in {run_dir}{from_where(checkpoint)}", flush=True)
        weights = train(config.data, models, device, run_dir, checkpoint, ranks, **origin)
        print(f"Weights: {weights}")
    test(config.data, models, device, args.student_only, run_dir, {"weights": str(weights), **origin}, ranks)


def own_device(name: str, ranks: Ranks) -> torch.device:
    """Returns the device that this rank computes on."""
    device = usable_device(name, local_rank())
    if device.type == "cuda" and not ranks.alone:
        if name != "cuda":
            raise UserError(f"--device {name} is one device for {ranks.world_size} processes: write --device cuda")
        torch.cuda.set_device(device)
    return device


def where(device: torch.device, ranks: Ranks) -> str:
    """Says what computes."""
    return str(device) if ranks.alone else f"{device.type} in {ranks.world_size} processes"


def mode_of(args: argparse.Namespace, ranks: Ranks) -> Mode:
    """Returns how much of the config the run needs."""
    if args.dry_run and not ranks.alone:
        raise UserError("--dry_run takes one process: start it with python in place of torchrun")
    if args.test_only and args.skip_ckpt:
        raise UserError("--test_only with --skip_ckpt would test random weights: drop one of the two")
    if args.resume and (args.test_only or args.dry_run):
        raise UserError("--resume goes on with a training: drop --test_only and --dry_run, or --resume")
    if args.test_only and args.dry_run:
        raise UserError("--dry_run trains and tests: drop --test_only")
    return "dry_run" if args.dry_run else "test" if args.test_only else "train"


def try_out(config: dict, device: torch.device, seed: int) -> None:
    """Builds the models without weights and runs them through `dry_run`."""
    check_teacher(config["models"].get("teacher_model"))
    trained_parts = trained_entry(config["models"]).get("kwargs", {}).get("trained_parts")
    if trained_parts is not None:
        check_trained_parts(trained_parts)
    without_weights(config["models"])
    models = {}
    for name, entry in config["models"].items():
        set_seed(seed)  # the same for each: teacher and student then have the same random backbone
        models[name] = build_model(name, entry, device)
    dry_run(config, models, device)


def check_teacher(entry: dict | None) -> None:
    """Refuses a teacher with random weights."""
    if entry is None:
        return
    kwargs = entry.get("kwargs", {})
    if not (kwargs.get("weights_path") or kwargs.get("pretrained")):
        raise UserError("models.teacher_model is untrained: give its weights_path, or pretrained: true")


def trained_entry(entries: dict) -> dict:
    """Returns the config's student_model or, where a model is trained alone, its model."""
    if ("model" in entries) == ("student_model" in entries):
        raise UserError("models must name either student_model (with teacher_model) or model: it names both or neither")
    return entries.get("student_model") or entries["model"]


def trained_model(models: dict[str, nn.Module]) -> nn.Module:
    return models["student_model"] if "student_model" in models else models["model"]


def find_checkpoint(run_dir: Path, resolved_config: str, seed: int, ranks: Ranks) -> dict[str, Any] | None:
    """Returns where a killed run of this config and seed stands; None where there is none, or it has ended."""
    if (run_dir / CONFIG).is_file():
        check_resumable(run_dir, resolved_config, seed)
    checkpoint = read_checkpoint(run_dir)
    processes = ranks.world_size if checkpoint is None else 1 + len(checkpoint.get("other_ranks", ()))
    if processes != ranks.world_size:
        numbers = f"the run has {processes}, now there are {ranks.world_size}"
        raise UserError(f"--resume goes on with the same number of processes only: {numbers}")
    return checkpoint


def open_run(run_dir: Path, resolved_config: str, seed: int, checkpoint: dict[str, Any] | None) -> None:
    """Opens the folder of a run that begins or goes on."""
    if checkpoint is None:
        start_run(run_dir, resolved_config, seed)
    else:
        resume_run(run_dir, seed)


def from_where(checkpoint: dict[str, Any] | None) -> str:
    """Says where a run goes on."""
    if checkpoint is None:
        return ""
    at = checkpoint["at"]
    return f", on from stage {at['stage']}, epoch {at['epoch']}, step {at['steps'] + 1}"


def find_weights(entry: dict, run_dir: Path, are_needed: bool) -> Path | None:
    """Returns the weights to start from: the run's own, else the config's src_ckpt, else none (an error if needed)."""
    own, source = run_dir / WEIGHTS, entry.get("src_ckpt")
    if own.is_file():
        return own
    if source is not None and not Path(source).is_file():
        raise UserError(f"no weights at {own}, nor at {source}, the config's src_ckpt; --skip_ckpt trains from scratch")
    if source is None and are_needed:
        raise UserError(f"nothing to test: no weights at {own}; train first")
    return None if source is None else Path(source)


def test(
    config: dict,
    models: dict[str, nn.Module],
    device: torch.device,
    student_only: bool,
    run_dir: Path,
    origin: dict,
    ranks: Ranks,
) -> None:
    """Tests on `config["test"]`, prints one table and writes it as test.json in the run folder."""
    loader = test_loader(config, ranks)
    results = {}
    if "teacher_model" in models and not student_only:
        results["teacher"] = test_classifier(models["teacher_model"], loader, device, "teacher", ranks)
    trained = trained_model(models)
    if isinstance(trained, SplitClassifier):
        trained.update()
        results["student"] = test_student(trained, loader, device, ranks)
        if ranks.first:  # while the others wait
            results["latency"] = latency(trained, loader, device)
        ranks.wait()
    else:
        results["model"] = test_classifier(trained, loader, device, "model", ranks)
    if not ranks.first:
        return
    for name in ("student", "model"):
        if "teacher" in results and name in results:
            results["predictive_loss"] = results["teacher"]["top1"] - results[name]["top1"]
    print(f"\nTest on {len(loader.dataset):,} images\n{results_table(results)}\n")
    path = run_dir / "test.json"
    write_atomically(path, json.dumps({**results, **origin}, indent=1).encode())
    print(f"Results: {path}")


if __name__ == "__main__":
    main()
