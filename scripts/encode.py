"""Encode images to streams, as an edge device does: only the encoder and the entropy model are loaded.

Images of any mode and size are transformed as in the config's test. NAME.jpg becomes DIR/NAME.fsb. A student of
variable rate takes --rate, by default 0.5, or --max_bytes.
"""

import argparse
from pathlib import Path

import torch

from misc.config.entries import image_transform
from misc.config.load import compose_config
from misc.datasets.image_folder import read_rgb
from misc.deploy.arguments import add_rate, add_student, output_paths, weights_of
from misc.deploy.load import load_edge
from misc.devices import usable_device
from misc.errors import UserError, exit_on_user_error
from misc.files import written


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="where the streams go")
    add_rate(parser)
    add_student(parser)
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    missing = next((path for path in args.images if not path.is_file()), None)
    if missing is not None:
        raise UserError(f"no image at {missing}")
    config = compose_config(args.config, args.set, mode="test")
    edge = load_edge(config, weights_of(config, args)).to(device, memory_format=torch.channels_last)
    level = edge.entropy_model.level_of(args.rate)
    transform = image_transform(config)
    outputs = output_paths(args.images, args.output, ".fsb")
    for path, output in zip(args.images, outputs, strict=True):
        x = transform(read_rgb(path))[None].to(device)
        try:
            stream = edge.encode_within(x, args.max_bytes) if args.max_bytes else edge.encode(x, level)[0]
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        with written(output) as file:
            file.write(stream)
        print(f"{path} -> {output}  {len(stream)} bytes")


if __name__ == "__main__":
    main()
