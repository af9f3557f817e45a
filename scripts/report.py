"""Report the results of a sweep beside image codecs: tables, plots and one static page that works offline.

    python scripts/report.py config/tiny_imagenet/results.csv --codecs config/tiny_imagenet/codecs.csv -o DIR

Rates are everything sent per image. A curve is a method's rows; rows that differ in nothing but the seed are averaged.
Bytes at an accuracy and BD-rates are read from the curves by monotone interpolation (`misc/evaluation/curves.py`); a
negative BD-rate means fewer bytes than the anchor at equal top-1. For each of `--losses`, times over a link are given
for the smallest student that loses no more; if there is none, for the one with the least loss. Codecs that never reach
its top-1 are left out. With `--runs`, the student for the smallest loss is shown at work: images with their classes,
bytes, saliency maps and bit allocation. Methods whose runs begin with the same weights as those of `--reference` are
compared with it seed by seed (`misc/reports/paired.py`).
"""

import argparse
import sys
from pathlib import Path

from misc.errors import exit_on_user_error
from misc.evaluation.codec_table import read_points
from misc.files import write_atomically
from misc.reports.sweep import analyse, anchors_among, files_of, reference_among, text_of
from misc.sweeps.table import read_rows

ANCHOR = "Entropic Student"
REFERENCE = "second half, no weights"
LOSSES = [0.5, 2.0]  # points of top-1


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("results", type=Path, metavar="CSV", help="from scripts/sweep.py")
    parser.add_argument("--codecs", required=True, type=Path, metavar="CSV", help="from scripts/evaluate_codecs.py")
    anchors = f"methods as anchors of BD-rates, beside the codecs (default: {ANCHOR}*, with two points or more)"
    parser.add_argument("--anchors", nargs="+", metavar="METHOD", help=anchors)
    reference = f"method that others with the same beginnings are compared with, seed by seed (default: {REFERENCE})"
    parser.add_argument("--reference", metavar="METHOD", help=reference)
    losses = f"below the teacher's top-1, for bytes and times (default: {' '.join(f'{loss:g}' for loss in LOSSES)})"
    parser.add_argument("--losses", nargs="+", type=points, default=LOSSES, metavar="POINTS", help=losses)
    parser.add_argument("--plot", nargs="+", metavar="METHOD", help="methods in rate_accuracy.svg (default: all)")
    runs = "the sweep's run folders: adds training curves and, with the data set, a student's images"
    parser.add_argument("--runs", type=Path, metavar="DIR", help=runs)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    return parser


def points(text: str) -> float:
    """Parse points of top-1, with at most two decimals."""
    value = float(text)
    if not 0 <= value <= 100 or round(value, 2) != value:
        raise argparse.ArgumentTypeError(f"'{text}' is no loss: expected points from 0 to 100, two decimals at most")
    return value


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    rows = read_rows(args.results)
    reference = reference_among(rows, args.reference, REFERENCE)
    anchors = anchors_among(rows, reference, args.anchors, ANCHOR)
    report = analyse(rows, read_points(args.codecs), anchors, reference, sorted(set(args.losses)))
    if not anchors:
        print(f"notice: no curve named {ANCHOR}*: BD-rates against codecs alone; see --anchors", file=sys.stderr)
    if not report.paired:
        print(
            f"notice: no runs begin with the same weights as those of '{args.reference or REFERENCE}': "
            "nothing is compared seed by seed; see --reference",
            file=sys.stderr,
        )
    files = files_of(report, args.runs, args.plot)
    for name, content in files.items():
        write_atomically(args.output / name, content)
    print(*text_of(report), sep="\n\n", end="\n\n")
    print("\n".join(str(args.output / name) for name in files))


if __name__ == "__main__":
    main()
