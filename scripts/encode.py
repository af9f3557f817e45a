"""Encodes images to streams, as a device at the edge does: the process holds the encoder and the entropy model alone.

Images of any mode and size are read and transformed as in the config's test. NAME.jpg becomes DIR/NAME.fsb.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from main_classification_torchdistill import find_weights
from misc.config import Config, compose_config
from misc.deployment import image_transform, load_edge, student_path
from misc.device import default_device, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.image_folder import read_rgb
from misc.run_folder import default_run_dir
from misc.training import WEIGHTS
from saliency_maps.writing import written


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="where the streams go")
    add_student(parser)
    return parser


def add_student(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which student, and where it runs."""
    parser.add_argument("--config", required=True, metavar="FILE", help="of a student (see config/README.md)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="default: resources/runs/ plus the config's path")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    missing = next((path for path in args.images if not path.is_file()), None)
    if missing is not None:
        raise UserError(f"no image at {missing}")
    outputs = output_paths(args.images, args.output, ".fsb")
    config = compose_config(args.config, args.set, mode="test")
    edge = load_edge(config, weights_of(config, args)).to(device, memory_format=torch.channels_last)
    transform = image_transform(config)
    for path, output in zip(args.images, outputs, strict=True):
        x = transform(read_rgb(path))[None].to(device)
        try:
            (stream,) = edge.encode(x)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        with written(output) as file:
            file.write(stream)
        print(f"{path} -> {output}  {len(stream)} bytes")


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


if __name__ == "__main__":
    main()
