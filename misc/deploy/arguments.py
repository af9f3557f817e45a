"""Command-line arguments that the device and the server share."""

import argparse
from collections import Counter
from pathlib import Path

from misc.config.entries import student_path
from misc.config.load import Config
from misc.devices import default_device
from misc.errors import UserError
from misc.training.run_folder import WEIGHTS, default_run_dir, find_weights


def add_student(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which student, and where it runs."""
    parser.add_argument("--config", required=True, metavar="FILE", help="of a student (see config/README.md)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="default: resources/runs/ plus the config's path")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")


def weights_of(config: Config, args: argparse.Namespace) -> Path:
    """Returns the student's weights: the run's own, else, where no run is named, the config's src_ckpt.

    Raises:
        UserError: there are none.
    """
    if args.run_dir is not None and not (args.run_dir / WEIGHTS).is_file():
        raise UserError(f"no weights in {args.run_dir}: expected {WEIGHTS}, which a training writes")
    path = f"{student_path(config)}.src_ckpt"
    entry = {"src_ckpt": config.construct(path) if config.has(path) else None}
    return find_weights(entry, args.run_dir or default_run_dir(args.config), are_needed=True)


def output_paths(inputs: list[Path], folder: Path, suffix: str) -> list[Path]:
    """Returns a path in the folder, which is made, for every input.

    Raises:
        UserError: two inputs of one name, or a folder that cannot be made.
    """
    outputs = [folder / f"{path.stem}{suffix}" for path in inputs]
    ((doubled, times),) = Counter(outputs).most_common(1)
    if times > 1:
        raise UserError(f"two of the files would be written to {doubled}: write them to folders of their own")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    return outputs
