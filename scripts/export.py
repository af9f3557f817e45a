"""Export a student's encoder for devices without PyTorch: encoder.onnx, edge.json and a client of one file.

    python scripts/export.py --config config/quickstart/sg_resnet.yaml -o edge
    python edge/edge_client.py encode edge photo.jpg -o streams

The client needs onnxruntime, NumPy and Pillow. Before the export is done, images are encoded by the model and by the
client: the config's test images if they are on disk, else those of --calibration, else generated ones. The streams of a
float encoder must be equal, but for numbers that PyTorch and ONNX Runtime round apart, which are counted; of an int8
one, the differences are printed.
"""

import argparse
from pathlib import Path

from misc.config.load import compose_config
from misc.deploy.arguments import add_config, weights_of
from misc.deploy.export import export
from misc.errors import UserError, exit_on_user_error


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add_config(parser)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: as scripts/encode.py")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="where the export goes")
    parser.add_argument("--int8", action="store_true", help="quantise the encoder to 8 bits")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="images at any depth, for int8's ranges and the check"
    )
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    config = compose_config(args.config, args.set, mode="test")
    if args.weights is not None and not args.weights.is_file():
        raise UserError(f"no weights at {args.weights}")
    exported = export(config, args.weights or weights_of(config, args), args.output, args.calibration, args.int8)
    for line in exported.checks:
        print(line)
    kind = "int8" if args.int8 else "float32"
    print(f"{args.output}: {kind} encoder of {exported.encoder_bytes:,} bytes, fingerprint {exported.fingerprint}")


if __name__ == "__main__":
    main()
