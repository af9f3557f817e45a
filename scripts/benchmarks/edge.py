"""Time the edge: encoding by PyTorch, ONNX, wasm and image codecs; whole processes; requests to the server.

    python scripts/benchmarks/edge.py encode --config config/quickstart/sg_resnet.yaml
    python scripts/benchmarks/edge.py process --config config/quickstart/sg_resnet.yaml --slim edge-env/bin/python
    python scripts/benchmarks/edge.py serve --config config/quickstart/sg_resnet.yaml

The alternatives take turns; a table gives medians over the rounds, and the median of each round's ratio to the first.
`serve` ends with exit code 1 if a good request is not answered.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from misc.config.load import Config, compose_config
from misc.deploy.arguments import add_config, weights_of
from misc.deploy.export import export
from misc.errors import exit_on_user_error, positive
from misc.tables import markdown, text_table
from scripts.benchmarks.edge_encode import encode_table
from scripts.benchmarks.edge_process import process_table
from scripts.benchmarks.edge_serve import serve_table

COMPARED = 50  # images on which int8 is compared with float32: figures are scripts/export.py's to print
ROUNDS = {"encode": 30, "process": 5, "serve": 3}


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = commands.add_parser("encode", help="one image, inside a process")
    encode.set_defaults(table=of_encoding)
    add_config(encode)
    encode.add_argument("--calibration", type=Path, metavar="DIR", help="images for int8, as scripts/export.py")

    process = commands.add_parser("process", help="processes that encode one image: time, memory, environment")
    process.set_defaults(table=of_processes)
    add_config(process)
    slim_help = "of an environment of misc/deploy/requirements-edge.txt (default: this one)"
    process.add_argument("--slim", type=Path, default=sys.executable, metavar="PYTHON", help=slim_help)

    serve = commands.add_parser("serve", help="requests to the server")
    serve.set_defaults(table=of_requests)
    serve.add_argument("--config", required=True, metavar="FILE", help="of a student (see config/README.md)")
    serve.add_argument("--requests", type=positive, default=1000, help="of each measurement (default: %(default)s)")

    for name, command in commands.choices.items():
        command.add_argument("--rounds", type=positive, default=ROUNDS[name], help="default: %(default)s")
        command.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        table = args.table(args, Path(temporary))
    print(markdown(table).rstrip() if args.markdown else text_table(table))
    if args.table is of_requests and any(lost != "0" for *_, lost in table[1:]):
        sys.exit(1)


def of_encoding(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    config, weights = exported(args, folder)
    export(config, weights, folder / "int8", args.calibration, int8=True, compared=COMPARED)
    return encode_table(config, weights, folder, args.rounds)


def of_processes(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    exported(args, folder)
    student = ["--config", args.config, *(f"--set={override}" for override in args.set)]
    student += ["--run_dir", str(args.run_dir)] if args.run_dir else []
    return process_table(student, folder, args.slim, args.rounds)


def of_requests(args: argparse.Namespace, _: Path) -> list[list[str]]:
    return serve_table(args.config, args.rounds, args.requests)


def exported(args: argparse.Namespace, folder: Path) -> tuple[Config, Path]:
    """Export the student's encoder to `float32` in a folder; return its config and weights."""
    config = compose_config(args.config, args.set, mode="test")
    weights = weights_of(config, args)
    export(config, weights, folder / "float32")
    return config, weights


if __name__ == "__main__":
    main()
