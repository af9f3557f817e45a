"""Command-line arguments that edge and server share."""

import argparse
from collections import Counter
from pathlib import Path

from misc.config.entries import student_path
from misc.config.load import Config
from misc.devices import default_device
from misc.errors import UserError, positive
from misc.training.run_folder import WEIGHTS, default_run_dir, find_weights


def add_student(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a student and its device."""
    add_config(parser)
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a student."""
    parser.add_argument("--config", required=True, metavar="FILE", help="of a student (see config/README.md)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="default: resources/runs/ plus the config's path")


def add_rate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose the rate of a student of variable rate."""
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--rate", type=float, metavar="R", help="0 (smallest streams) to 1 (largest); default: 0.5")
    rate.add_argument("--max_bytes", type=positive, metavar="N", help="the highest rate at which a stream fits N bytes")


def weights_of(config: Config, args: argparse.Namespace) -> Path:
    """Return the student's weights: the run's own, or else, unless --run_dir is given, the config's src_ckpt.

    Raises:
        UserError: there are no weights.
    """
    if args.run_dir is not None and not (args.run_dir / WEIGHTS).is_file():
        raise UserError(f"no weights in {args.run_dir}: expected {WEIGHTS}, which a training writes")
    path = f"{student_path(config)}.src_ckpt"
    entry = {"src_ckpt": config.construct(path) if config.has(path) else None}
    weights = find_weights(entry, args.run_dir or default_run_dir(args.config), are_needed=True)
    assert weights is not None
    return weights


def output_paths(inputs: list[Path], folder: Path, suffix: str) -> list[Path]:
    """Create the folder and return a path in it for every input.

    Raises:
        UserError: two inputs have the same name, or the folder cannot be created.
    """
    outputs = [folder / f"{path.stem}{suffix}" for path in inputs]
    ((doubled, times),) = Counter(outputs).most_common(1)
    if times > 1:
        raise UserError(f"two of the files would be written to {doubled}: write them to separate folders")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    return outputs
