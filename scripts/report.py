"""Renders the results of a sweep beside image codecs: tables, plots and one static page that works offline.

    python scripts/report.py config/tiny_imagenet/results.csv --codecs config/tiny_imagenet/codecs.csv -o DIR

Rates are everything sent per image. A curve is a method's rows; rows that differ in nothing but the seed are averaged.
Bytes at an accuracy and Bjontegaard deltas are read from the curves by monotone interpolation
(`misc/rate_accuracy.py`); a negative delta means fewer bytes than the anchor at equal top-1.
"""

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import page
from misc.atomic import write_atomically
from misc.codecs import by_codec, read_points
from misc.errors import UserError, did_you_mean, exit_on_user_error
from misc.rate_accuracy import Point, bd_rate, bytes_at
from misc.report import text_table

NEEDED = ("run", "method", "set", "seed", "images", "top1", "predictive_loss", "sent_bytes")
SMALL_LOSS = 0.5  # points of top-1
NOT_RUN = "not run"
STYLE = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "report", "axes.linewidth": 0.8}
# Okabe and Ito's colours, which colour-blind readers tell apart; the markers differ too.
COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442", "#0072B2", "#D55E00")
MARKERS = "os^Dv<>P*X"
GREY = "#5b6470"


class Student(NamedTuple):
    """One setting of a method, averaged over its seeds.

    Attributes:
        setting: what was set, as the sweep wrote it.
        seeds: how many.
        point: mean rate and accuracy.
        spread: standard deviation of top-1 over the seeds, points; None of one seed.
    """

    setting: str
    seeds: int
    point: Point
    spread: float | None


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("results", type=Path, metavar="CSV", help="from scripts/sweep.py")
    parser.add_argument("--codecs", required=True, type=Path, metavar="CSV", help="from scripts/evaluate_codecs.py")
    parser.add_argument("--anchor", default="Entropic Student", help="method to compare with (default: %(default)s)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="the sweep's run folders, for the training curves")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    rows, codecs = read_rows(args.results), by_codec(read_points(args.codecs))
    methods = students_of(rows)
    if not methods:
        raise UserError(f"no run in {args.results} was run: python scripts/sweep.py makes them")
    if args.anchor not in methods and args.anchor not in {row["method"] for row in rows}:
        raise UserError(f"--anchor {args.anchor} is no method in {args.results}{did_you_mean(args.anchor, methods)}")
    teacher = teacher_top1(rows)
    curves = {name: [student.point for student in students] for name, students in methods.items()}
    curves |= {name: [Point(point.bytes_per_image, point.top1) for point in points] for name, points in codecs.items()}
    summary = summary_table(curves, methods, teacher, [args.anchor, *codecs])
    files = {
        "rate_accuracy.svg": rendered(rate_accuracy(curves, methods, teacher)),
        **({"training.svg": rendered(training_curves(rows, args.runs))} if args.runs else {}),
    }
    body = page_body(summary, all_rows(rows), teacher, rows, "training.svg" in files)
    files["index.html"] = page.page("Rate against accuracy", body).encode()
    for name, content in files.items():
        write_atomically(args.output / name, content)
    print(f"teacher {teacher:.2f} %\n{text_table(summary)}\n")
    print("\n".join(str(args.output / name) for name in files))


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a sweep's table.

    Raises:
        UserError: no such file, or not one that scripts/sweep.py wrote.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"no results at {path} ({error}): python scripts/sweep.py makes them") from None
    missing = [column for column in NEEDED if not rows or column not in rows[0]]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}: expected a table of scripts/sweep.py")
    return rows


def students_of(rows: Sequence[Mapping[str, str]]) -> dict[str, list[Student]]:
    """Returns the students of each method by rising rate; rows that were not run are left out."""
    seeds: dict[tuple[str, str], list[Point]] = {}
    for row in rows:
        if row["images"] != NOT_RUN and row["sent_bytes"]:
            point = Point(float(row["sent_bytes"]), float(row["top1"]))
            seeds.setdefault((row["method"], row["set"]), []).append(point)
    methods: dict[str, list[Student]] = {}
    for (method, setting), points in seeds.items():
        accuracies = [point.top1 for point in points]
        mean = Point(statistics.mean(point.bytes_per_image for point in points), statistics.mean(accuracies))
        spread = statistics.stdev(accuracies) if len(points) > 1 else None
        methods.setdefault(method, []).append(Student(setting, len(points), mean, spread))
    return {name: sorted(students, key=lambda student: student.point) for name, students in methods.items()}


def teacher_top1(rows: Sequence[Mapping[str, str]]) -> float:
    """Returns the top-1 of the teacher that all students share.

    Raises:
        UserError: the students have several.
    """
    found = {
        round(float(row["top1"]) + float(row["predictive_loss"]), 2)
        for row in rows
        if row["images"] != NOT_RUN and row["predictive_loss"]
    }
    if len(found) != 1:
        raise UserError(f"the students have teachers of {sorted(found)} % top-1: report those of one teacher at a time")
    return found.pop()


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def summary_table(
    curves: Mapping[str, Sequence[Point]], methods: Mapping[str, object], teacher: float, anchors: Sequence[str]
) -> list[list[str]]:
    """Returns header and a row for each curve: its points, bytes at a small loss, deltas to the anchors."""
    header = ["", "points", "bytes/image", "top-1 %", f"bytes at {SMALL_LOSS} loss"]
    table = [[*header, *(f"rate against {anchor}" for anchor in anchors)]]
    for name, points in curves.items():
        sizes, accuracies = [point.bytes_per_image for point in points], [point.top1 for point in points]
        small = bytes_at(points, teacher - SMALL_LOSS)
        deltas = (bd_rate(curves.get(anchor, []), points) if anchor != name else None for anchor in anchors)
        table.append(
            [
                name,
                str(len(points)),
                f"{min(sizes):,.0f} to {max(sizes):,.0f}",
                f"{min(accuracies):.1f} to {max(accuracies):.1f}",
                f"{small:,.0f}" if small else "not reached" if max(accuracies) < teacher - SMALL_LOSS else "all",
                *(f"{delta.percent:+.0f} % ({delta.low:.0f}-{delta.high:.0f})" if delta else "" for delta in deltas),
            ]
        )
    return table


def all_rows(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Returns header and every run's row, those that were not run included."""
    table = [["run", "method", "seed", "top-1 %", "loss", "bytes/image", "encode ms", "decode ms", "training s"]]
    columns = ("top1", "predictive_loss", "sent_bytes", "encode_ms", "decode_ms", "training_s")
    for row in rows:
        absent = NOT_RUN if row["images"] == NOT_RUN else ""
        table.append([row["run"], row["method"], row["seed"], *(row.get(name) or absent for name in columns)])
    return table


def page_body(
    summary: list[list[str]],
    runs: list[list[str]],
    teacher: float,
    rows: Sequence[Mapping[str, str]],
    with_training: bool,
) -> str:
    images = next(row["images"] for row in rows if row["images"] != NOT_RUN)
    parts = [
        f"<p>Students that send a compressed feature, and image codecs, in front of the same teacher ({teacher:.2f} % "
        f"top-1). {int(images):,} validation images, none of which was trained on, but the best epoch was chosen on "
        "them. Every student's accuracy and bytes come from real streams, decoded.</p>",
        page.table(summary),
        f'<p class="note">Bytes are everything sent per image. <i>Bytes at {SMALL_LOSS} loss</i>: where the curve '
        f"crosses {SMALL_LOSS} points below the teacher. <i>Rate against</i>: Bjontegaard delta, in brackets the top-1 "
        "over which it is taken; empty where two curves share none.</p>",
        "<h2>Accuracy against size</h2>",
        page.figure(
            "rate_accuracy.svg",
            "Top-1 accuracy against bytes per image for every method, the codecs and the teacher",
            "Top-1 against everything sent per image, on a logarithmic axis. Bars: standard deviation over seeds.",
        ),
    ]
    if with_training:
        caption = "Top-1 on the validation images, estimated with rounding, and the loss of each epoch."
        parts += ["<h2>Training</h2>", page.figure("training.svg", "Training curves of all runs", caption)]
    return "\n".join([*parts, "<h2>Every run</h2>", page.table(runs)])


# ---------------------------------------------------------------------------------------------------------------------
# Plots
# ---------------------------------------------------------------------------------------------------------------------


def rate_accuracy(
    curves: Mapping[str, Sequence[Point]], methods: Mapping[str, Sequence[Student]], teacher: float
) -> Figure:
    """Plots top-1 against bytes per image: methods as solid lines, codecs as dotted ones, the teacher as a level."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            sizes, accuracies = zip(*sorted(points), strict=True)
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            line = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6, "label": name}
            axes.plot(sizes, accuracies, linestyle="-" if name in methods else ":", **line)
            spreads = [(student.point, student.spread) for student in methods.get(name, []) if student.spread]
            for point, spread in spreads:
                axes.errorbar(*point, yerr=spread, color=colour, capsize=3, linewidth=1)
        axes.axhline(teacher, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, label="teacher, whole image")
        style_size_axis(axes)
        axes.set_ylabel("top-1 accuracy (%)")
        best = max(teacher, *(point.top1 for points in curves.values() for point in points))
        axes.set_ylim(max(0, teacher - 30), best + 1)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, columnspacing=1.5)
        return figure


def style_size_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bytes per image")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def training_curves(rows: Sequence[Mapping[str, str]], folder: Path) -> Figure:
    """Plots validation top-1 and loss of every run by epoch, in the colour of its method.

    Raises:
        UserError: no run of the table has its history below `folder`.
    """
    histories = {
        row["run"]: (row["method"], history)
        for row in rows
        if (history := folder / row["run"] / "history.jsonl").is_file()
    }
    if not histories:
        raise UserError(f"--runs {folder} holds none of the table's runs: expected RUN/history.jsonl")
    methods = list(dict.fromkeys(method for method, _ in histories.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        for method, history in histories.values():
            epochs = [json.loads(line) for line in history.read_text().splitlines()]
            numbers = range(1, len(epochs) + 1)
            style = {"color": COLOURS[methods.index(method) % len(COLOURS)], "linewidth": 1}
            accuracy.plot(numbers, [epoch["val_top1"] for epoch in epochs], **style)
            loss.plot(numbers, [epoch["loss"] for epoch in epochs], **style)
        for axes, label in ((accuracy, "validation top-1 (%)"), (loss, "loss")):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        loss.set_yscale("log")
        for number, method in enumerate(methods):
            accuracy.plot([], [], color=COLOURS[number % len(COLOURS)], label=method)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return figure


def rendered(figure: Figure) -> bytes:
    """Returns a figure as SVG; equal figures give equal files."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    main()
