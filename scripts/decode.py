"""Decodes streams to classes, as a server does: the process holds the entropy model, the decoder and the tail alone.

Prints the five most probable classes of every stream, numbered as the teacher numbers them.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from misc.config.load import compose_config
from misc.deploy.arguments import add_student, output_paths, weights_of
from misc.deploy.load import load_server
from misc.devices import usable_device
from misc.errors import exit_on_user_error
from misc.files import written
from model.coding.bitstream import BitstreamError, read_packed

CLASSES = 5


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
    outputs = output_paths(args.streams, args.feature, ".npy") if args.feature else [None] * len(args.streams)
    config = compose_config(args.config, args.set, mode="test")
    server = load_server(config, weights_of(config, args)).to(device, memory_format=torch.channels_last)
    for path, output in zip(args.streams, outputs, strict=True):
        try:
            h_hat = server.features([read_packed(path)])
            logits = server.logits(h_hat)
        except BitstreamError as error:
            raise BitstreamError(f"{path}: {error}") from error
        if output:
            with written(output) as file:
                file.write(npy(h_hat[0]))
        print(f"{path}: {ranking(logits[0])}")


def ranking(logits: Tensor) -> str:
    """Returns the most probable classes and their probabilities in percent."""
    probabilities, classes = logits.float().softmax(0).topk(min(CLASSES, len(logits)))
    pairs = zip(classes.tolist(), probabilities.tolist(), strict=True)
    return ", ".join(f"class {number} {probability:.1%}" for number, probability in pairs)


def npy(tensor: Tensor) -> bytes:
    """Returns the bytes of a NumPy file of float32."""
    file = io.BytesIO()
    np.save(file, tensor.float().cpu().numpy())
    return file.getvalue()


if __name__ == "__main__":
    main()
