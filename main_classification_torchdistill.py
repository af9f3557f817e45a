"""Train and test a classifier or split classifier from a YAML config, through torchdistill.

Started with `torchrun --nproc_per_node N` instead of `python`, N processes, on CUDA each with its own GPU, share every
batch.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

from torchdistill.common.main_util import set_seed

from misc.config import load_config
from misc.config.entries import build_model, check_teacher, trained_model, trained_name, without_trained_parts
from misc.config.nodes import Mode
from misc.devices import default_device, share_cores
from misc.distributed.ranks import Ranks, joined_ranks, own_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.evaluate import evaluate
from misc.sweeps.table import curves_of
from misc.training.checks import check_shares, check_tails
from misc.training.dry_run import try_out
from misc.training.run_folder import default_run_dir, lock_run, provenance
from misc.training.run_plan import plan_run, train_run
from model.split import load_into


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="what to train and test (see config/README.md)")
    add("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    add("--device", default=default_device(), help="default: %(default)s")
    add("--seed", type=int, default=0, help="of weights, data order and noise (default: %(default)s)")
    add("--run_dir", type=Path, metavar="DIR", help="default: resources/runs/ plus the config's path")
    add("--test_only", action="store_true", help="test the run's weights, or the config's src_ckpt")
    add("--skip_ckpt", action="store_true", help="train from scratch, not from existing weights")
    add("--resume", action="store_true", help="resume the run if it was interrupted, else begin it")
    add("--student_only", action="store_true", help="leave the teacher out of the test")
    add("--rate", type=float, metavar="R", help="test a student of variable rate at R in [0, 1]; default: all levels")
    add("--results", type=Path, metavar="CSV", help="of scripts/sweep.py: print BD-rates against its methods")
    add("--dry_run", action="store_true", help="try the config at full size on random weights and images")
    add("--log_config", action="store_true", help="print the resolved config")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    run_dir = args.run_dir or default_run_dir(args.config)
    is_training = not (args.test_only or args.dry_run)
    with joined_ranks() as ranks, lock_run(run_dir) if ranks.first and is_training else nullcontext():
        run(args, run_dir, ranks)


def run(args: argparse.Namespace, run_dir: Path, ranks: Ranks) -> None:
    """Do what the arguments say, together with the other ranks."""
    device, mode = own_device(args.device, ranks), mode_of(args, ranks)
    share_cores()
    set_seed(args.seed)
    with ranks.first_ahead():
        config = load_config(args.config, args.set, mode)
    if args.log_config:
        print(config.resolved)
    if args.dry_run:
        return try_out(config.data, device, args.seed)
    if mode == "train":
        check_shares(config.data, ranks)
    entries = config.data["models"]
    check_teacher(entries.get("teacher_model"))
    flags = {"test_only": args.test_only, "skip_ckpt": args.skip_ckpt, "resume": args.resume}
    anchors = curves_of(args.results) if args.results else None
    plan = plan_run(trained_model(entries), run_dir, config.resolved, args.seed, **flags, ranks=ranks)
    if plan.overwrites_parameters:
        entries = {**entries, trained_name(entries): without_trained_parts(trained_model(entries))}
    models = {name: build_model(name, entry, device) for name, entry in entries.items()}
    check_tails(models)
    if plan.weights is not None:
        load_into(trained_model(models), plan.weights)
        print(f"Weights: {plan.weights}")
    origin = provenance(args.seed)
    weights = plan.weights
    if plan.train:
        weights = train_run(config, models, device, run_dir, plan.checkpoint, ranks, origin)
    origin = {"weights": str(weights), **origin}
    evaluate(config.data, models, device, args.student_only, run_dir, origin, ranks, args.rate, anchors)


def mode_of(args: argparse.Namespace, ranks: Ranks) -> Mode:
    """Return how much of the config the run needs; refuse flags that contradict each other."""
    if args.dry_run and not ranks.alone:
        raise UserError("--dry_run takes one process: start it with python instead of torchrun")
    if args.test_only and args.skip_ckpt:
        raise UserError("--test_only with --skip_ckpt would test random weights: drop one of the two")
    if args.resume and (args.test_only or args.dry_run):
        raise UserError("--resume continues a training: drop --test_only and --dry_run, or --resume")
    if args.test_only and args.dry_run:
        raise UserError("--dry_run trains and tests: drop --test_only")
    return "dry_run" if args.dry_run else "test" if args.test_only else "train"


if __name__ == "__main__":
    main()
