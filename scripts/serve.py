"""Serve students over HTTP: streams in, classes or features out, and a page that encodes in the browser at /.

Only the server halves are kept. A stream finds its model by its fingerprint. The running server describes its endpoints
at /docs. SIGTERM or Ctrl-C ends it; what it was asked before is answered, but for what takes more than five seconds.
"""

import argparse
from pathlib import Path

import torch

from misc.deploy.server.app import create_app
from misc.deploy.server.batcher import Batcher
from misc.deploy.server.decoding import StreamDecoder
from misc.deploy.server.limits import read_token
from misc.deploy.server.metrics import Metrics
from misc.deploy.server.models import ServedModel, check_distinct, with_edges
from misc.deploy.server.run import Server, bound_socket
from misc.deploy.server.sources import sources_of
from misc.devices import default_device, usable_device
from misc.errors import exit_on_user_error, positive
from misc.training.run_folder import WEIGHTS


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--config", action="append", required=True, metavar="FILE", help="of a student; may be repeated")
    given = parser.add_mutually_exclusive_group()
    per_config = {"action": "append", "type": Path}
    given.add_argument(
        "--weights", **per_config, metavar="FILE", help="one per --config; default: as scripts/decode.py"
    )
    given.add_argument("--run_dir", **per_config, metavar="DIR", help="of a training, in place of --weights")
    add("--set", action="append", default=[], metavar="A.B=C", help="override one value of each config")
    add("--edge", action="append", default=[], type=Path, metavar="DIR", help="exported encoder, for everybody's page")
    add("--examples", action="store_true", help="show some test images of each config, to everybody")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is all (default: %(default)s)")
    add("--port", type=int, default=8000, help="0 is any free one (default: %(default)s)")
    add("--max_batch", type=positive, default=32, help="streams decoded at once (default: %(default)s)")
    add("--queue", type=positive, default=256, help="streams that may wait; more are sent away (default: %(default)s)")
    add("--threads", type=positive, help="of PyTorch (default: one per core)")
    add("--token_file", type=Path, metavar="FILE", help="POST requests, no others, must bring the bearer token in it")
    add("--device", default=default_device(), help="default: %(default)s")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    token = read_token(args.token_file) if args.token_file else None
    socket = bound_socket(args.host, args.port)
    if args.threads:
        torch.set_num_threads(args.threads)
    served = load(args)
    infos = with_edges([model.info for model in served], args.edge)
    metrics = Metrics()
    decoder = StreamDecoder({model.info.fingerprint: model.half for model in served})
    with Batcher(decoder, metrics, args.max_batch, args.queue) as batcher:
        app = create_app(infos, batcher, metrics, token)
        host = f"[{args.host}]" if ":" in args.host else args.host
        names = ", ".join(f"{info.config} ({info.fingerprint})" for info in infos)
        line = f"serving {names} at http://{host}:{socket.getsockname()[1]}"
        Server(app, lambda: print(line, flush=True)).run([socket])


def load(args: argparse.Namespace) -> list[ServedModel]:
    """Return the models that the arguments name."""
    device = usable_device(args.device)
    weights = args.weights or [folder / WEIGHTS for folder in args.run_dir or []]
    served = [source.load(device, args.examples) for source in sources_of(args.config, weights, args.set)]
    check_distinct([model.info for model in served])
    return served


if __name__ == "__main__":
    main()
