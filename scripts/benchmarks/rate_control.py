"""Fit the test images of a student of variable rate into budgets of bytes, and classify them.

For each budget: images that do not fit even at the lowest rate (they count as wrong), streams over the budget (there
must be none), mean bytes, top-1, and top-1 of fixed levels at the same mean bytes, interpolated between the trained
levels over the logarithm of the bytes.
"""

import argparse
from functools import partial

import numpy as np
import torch

from misc.config.load import compose_config, load_config
from misc.deploy.arguments import add_student, weights_of
from misc.deploy.load import load_edge, load_server
from misc.devices import usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.accuracy import labels_of
from misc.evaluation.evaluate import evaluation_loader
from misc.progress import advance, progress_bar
from misc.tables import text_table
from model.halves import ServerHalf, highest_within

HEADER = ["budget", "do not fit", "over budget", "mean bytes", "top-1 %", "fixed level, top-1 %"]


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[60, 80, 120, 200], metavar="N", help="default: 60 80 120 200"
    )
    add_student(parser)
    return parser


class Tally:
    """Sizes and hits of the images so far; an image that was not sent is a miss without bytes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.hits = 0
        self.unsent = 0

    def top1(self) -> float:
        """Return top-1 in percent."""
        return 100 * self.hits / (len(self.sizes) + self.unsent)

    def add(self, server: ServerHalf, streams: list[bytes | None], labels: torch.Tensor) -> None:
        """Count a batch of streams; None is an image that did not fit."""
        sent = [(stream, int(label)) for stream, label in zip(streams, labels, strict=True) if stream is not None]
        self.unsent += len(streams) - len(sent)
        if sent:
            found, wanted = server.decode([stream for stream, _ in sent]).argmax(1).tolist(), [each for _, each in sent]
            self.hits += sum(map(int.__eq__, found, wanted))
            self.sizes += [len(stream) for stream, _ in sent]


@exit_on_user_error
@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device, config = usable_device(args.device), compose_config(args.config, args.set, mode="test")
    weights = weights_of(config, args)
    edge, server = (load(config, weights).to(device).eval() for load in (load_edge, load_server))
    if edge.entropy_model.gains is None:
        raise UserError(f"{args.config} has one rate: nothing can be fitted")
    loader = evaluation_loader(load_config(args.config, args.set, mode="test").data)
    levels = edge.entropy_model.gains.trained()
    fixed, budgets = {level: Tally() for level in levels}, {budget: Tally() for budget in args.budgets}
    with progress_bar(None, "images", len(loader.dataset)) as bar:
        for x, targets, *_ in loader:
            y, labels = edge.encoder(x.to(device)), labels_of(targets)
            for level, tally in fixed.items():
                tally.add(server, edge.pack(y, level), labels)
            for budget, tally in budgets.items():
                tally.add(server, highest_within(partial(edge.pack, y), len(y), levels[-1], budget), labels)
            advance(bar, len(x))
    curve = sorted((float(np.mean(tally.sizes)), tally.top1()) for tally in fixed.values())
    print(text_table([HEADER, *(_row(budget, tally, curve) for budget, tally in budgets.items())]))


def _row(budget: int, tally: Tally, curve: list[tuple[float, float]]) -> list[str]:
    over = sum(size > budget for size in tally.sizes)
    if not tally.sizes:
        return [str(budget), str(tally.unsent), "0", "", f"{tally.top1():.2f}", ""]
    mean, (sizes, accuracies) = float(np.mean(tally.sizes)), zip(*curve, strict=True)
    same = np.interp(np.log(mean), np.log(sizes), accuracies) if sizes[0] <= mean <= sizes[-1] else None
    beside = "outside of the levels" if same is None else f"{same:.2f}"
    return [str(budget), str(tally.unsent), str(over), f"{mean:.1f}", f"{tally.top1():.2f}", beside]


if __name__ == "__main__":
    main()
