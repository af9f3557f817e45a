"""Decode streams to classes, as a server does: only the entropy model, the decoder and the tail are loaded.

Print the five most probable classes of every stream, by name where the config or its test images tell the names.
"""

import argparse
from pathlib import Path

import torch

from misc.config.entries import num_classes
from misc.config.load import compose_config
from misc.deploy.arguments import add_student, output_paths, weights_of
from misc.deploy.class_names import class_names
from misc.deploy.load import load_server
from misc.deploy.results import npy, ranking
from misc.devices import usable_device
from misc.errors import exit_on_user_error
from misc.files import written
from model.coding.bitstream import BitstreamError, read_packed


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("streams", nargs="+", type=Path, metavar="STREAM", help="files that scripts/encode.py wrote")
    parser.add_argument("--feature", type=Path, metavar="DIR", help="save h_hat of every stream as NAME.npy in DIR")
    add_student(parser)
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    config = compose_config(args.config, args.set, mode="test")
    server = load_server(config, weights_of(config, args)).to(device, memory_format=torch.channels_last)
    names = class_names(config, num_classes(config))
    outputs = output_paths(args.streams, args.feature, ".npy") if args.feature else [None] * len(args.streams)
    for path, output in zip(args.streams, outputs, strict=True):
        try:
            h_hat = server.features([read_packed(path)])
            logits = server.logits(h_hat)
        except BitstreamError as error:
            raise BitstreamError(f"{path}: {error}") from error
        if output:
            with written(output) as file:
                file.write(npy(h_hat[0]))
        print(f"{path}: {ranking(logits[0], names)}")


if __name__ == "__main__":
    main()
