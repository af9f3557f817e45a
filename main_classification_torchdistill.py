"""Trains and tests classifiers and split classifiers from a YAML config, through torchdistill.

`torchrun --nproc_per_node N` in place of `python` shares every batch among N processes, with CUDA among N GPUs.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torchdistill.common.main_util import set_seed

from misc.config.entries import build_model, check_teacher, trained_entry, trained_model
from misc.config.load import load_config
from misc.config.nodes import Mode
from misc.devices import default_device, share_cores
from misc.distributed.ranks import Ranks, joined_ranks, own_device, where
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.evaluate import evaluate
from misc.files import locked
from misc.training.checkpoint import find_checkpoint, from_where
from misc.training.checks import check_shares, check_tails, check_training
from misc.training.dry_run import try_out
from misc.training.loop import train
from misc.training.run_folder import (
    WEIGHTS,
    default_run_dir,
    find_weights,
    open_run,
    provenance,
)
from model.split import load_into


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
    evaluate(config.data, models, device, args.student_only, run_dir, {"weights": str(weights), **origin}, ranks)


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


if __name__ == "__main__":
    main()
