"""Time the edge: encoding by PyTorch, ONNX, wasm and image codecs; whole processes; requests to the server.

    python scripts/benchmarks/edge.py encode --config config/quickstart/sg_resnet.yaml
    python scripts/benchmarks/edge.py process --config config/quickstart/sg_resnet.yaml --slim edge-env/bin/python
    python scripts/benchmarks/edge.py serve --config config/quickstart/sg_resnet.yaml

The alternatives take turns; a table gives medians over the rounds, and the median of each round's ratio to the first.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from misc.config.load import compose_config
from misc.deploy.arguments import add_config, weights_of
from misc.deploy.export import export
from misc.errors import exit_on_user_error
from misc.tables import markdown, text_table
from scripts.benchmarks.edge_encode import encode_table
from scripts.benchmarks.edge_process import process_table
from scripts.benchmarks.edge_serve import serve_table

COMPARED = 50  # images on which int8 is compared with float32: figures are scripts/export.py's to print
ROUNDS = {"encode": 30, "process": 5, "serve": 3}


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("what", choices=ROUNDS)
    add_config(parser)
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="encode: images for int8, as scripts/export.py")
    parser.add_argument("--slim", type=Path, metavar="PYTHON", help="process: of misc/deploy/requirements-edge.txt")
    parser.add_argument("--requests", type=int, default=1000, help="serve: of each measurement (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    rounds = args.rounds or ROUNDS[args.what]
    if args.what == "serve":
        table = serve_table(args.config, rounds, args.requests)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            table = of_export(args, rounds, Path(temporary))
    print(markdown(table) if args.markdown else text_table(table))


def of_export(args: argparse.Namespace, rounds: int, folder: Path) -> list[list[str]]:
    """Export the encoder to a folder and return the table of its encoding or of its processes."""
    config = compose_config(args.config, args.set, mode="test")
    weights = weights_of(config, args)
    export(config, weights, folder / "float32")
    if args.what == "process":
        return process_table(args.config, folder, args.slim or Path(sys.executable), rounds)
    export(config, weights, folder / "int8", args.calibration, int8=True, compared=COMPARED)
    return encode_table(config, weights, folder, rounds)


if __name__ == "__main__":
    main()
