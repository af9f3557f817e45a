"""Plots of the reports: accuracy against size, training curves, time over a link, differences, sizes."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from misc.errors import UserError
from misc.evaluation.curves import Point
from misc.reports.link import BANDWIDTHS, Route
from misc.reports.paired import Comparison
from misc.sweeps.table import Student, SweepRow

STYLE = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "report", "axes.linewidth": 0.8}
# Okabe and Ito's colours, which colour-blind readers can tell apart, with a yellow dark enough for white. Markers
# differ as well.
COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#8A7F00", "#0072B2", "#D55E00")
MARKERS = "os^Dv<>P*X"
LINES = ("-", "--", ":")
GREY = "#5b6470"


def rate_accuracy(
    students: Mapping[str, Sequence[Student]], codecs: Mapping[str, Sequence[Point]], teacher: float
) -> Figure:
    """Plot top-1 against bytes per image: students as solid lines, codecs as dotted ones, the teacher as a level.

    The axis of top-1 begins 30 points below the teacher.
    """
    curves = {name: [student.point for student in curve] for name, curve in students.items()} | dict(codecs)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.5), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            sizes, accuracies = zip(*sorted(points), strict=True)
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            line = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6, "label": name}
            axes.plot(sizes, accuracies, linestyle="-" if name in students else ":", **line)
            spreads = [(student.point, student.spread) for student in students.get(name, []) if student.spread]
            for point, spread in spreads:
                axes.errorbar(*point, yerr=spread, color=colour, capsize=3, linewidth=1)
        axes.axhline(teacher, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, label="teacher, whole image")
        style_size_axis(axes)
        axes.set_xlabel("bytes per image")
        axes.set_ylabel("top-1 accuracy (%)")
        best = max(teacher, *(point.top1 for points in curves.values() for point in points))
        axes.set_ylim(max(0, teacher - 30), best + 1)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, columnspacing=1.5)
        return figure


def style_size_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    style(axes)


def style(axes: Axes) -> None:
    """Leave two spines and a light horizontal grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def training_curves(rows: Sequence[SweepRow], folder: Path) -> Figure:
    """Plot validation top-1 and loss of every run by epoch, in the colour of its method.

    Raises:
        UserError: no run of the table has its history in `folder`.
    """
    histories = {
        row.folder_name: (row.method, history)
        for row in rows
        if (history := folder / row.folder_name / "history.jsonl").is_file()
    }
    if not histories:
        raise UserError(f"--runs {folder} holds none of the table's runs: expected RUN/history.jsonl")
    methods = list(dict.fromkeys(method for method, _ in histories.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        styles = {
            name: {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}
            for i, name in enumerate(methods)
        }
        for method, history in histories.values():
            epochs = [json.loads(line) for line in history.read_text().splitlines()]
            numbers = range(1, len(epochs) + 1)
            line = styles[method] | {"linewidth": 1}
            accuracy.plot(numbers, [epoch["val_top1"] for epoch in epochs], **line)
            loss.plot(numbers, [epoch["loss"] for epoch in epochs], **line)
        for axes, label in ((accuracy, "validation top-1 (%)"), (loss, "loss")):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            style(axes)
        loss.set_yscale("log")
        for method in methods:
            accuracy.plot([], [], **styles[method], label=method)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return figure


def times_over_a_link(routes: Mapping[str, Route]) -> Figure:
    """Plot milliseconds from image to answer against bandwidth, a line per route."""
    bandwidths = np.geomspace(BANDWIDTHS[0], BANDWIDTHS[-1], 100)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, route) in enumerate(routes.items()):
            times = [route.milliseconds(bandwidth) for bandwidth in bandwidths]
            axes.plot(bandwidths, times, color=COLOURS[number % len(COLOURS)], linewidth=1.6, label=name)
        style_size_axis(axes)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("bandwidth (Mbit/s)")
        axes.set_ylabel("image to answer (ms)")
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
        return figure


def differences(comparisons: Sequence[Comparison]) -> Figure:
    """Plot differences in top-1 from the first method: a dot per seed, their mean and its 95 % interval."""
    others = comparisons[1:]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.35 * len(others)), layout="constrained")
        axes = figure.subplots()
        for height, other in enumerate(others):
            axes.plot(other.values, [height] * len(other.values), "o", color=COLOURS[3], markersize=5)
            if other.top1 and other.top1.sign is not None:
                mean = {"color": COLOURS[4], "marker": "|", "markersize": 12, "capsize": 3, "linewidth": 1.2}
                axes.errorbar(other.top1.mean, height, xerr=other.top1.margin, **mean)
        axes.axvline(0, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2)
        style(axes)
        axes.set_yticks(range(len(others)), [other.method for other in others])
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.set_xlabel("difference in top-1 at equal bytes (points)")
        return figure


def size_histogram(num_bytes: Sequence[int]) -> Figure:
    """Plot a histogram of the bytes per image, with the mean."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        width = max(1, round((max(num_bytes) - min(num_bytes)) / 40))
        axes.hist(num_bytes, bins=np.arange(min(num_bytes), max(num_bytes) + 2 * width, width), color=COLOURS[6])
        mean = float(np.mean(num_bytes))
        axes.axvline(mean, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, label=f"mean, {mean:.1f}")
        style(axes)
        axes.set_xlabel("bytes per image")
        axes.set_ylabel("images")
        axes.legend(frameon=False)
        return figure


def rendered(figure: Figure, file_format: str = "svg") -> bytes:
    """Return a figure as a file, "svg" or "png"; equal figures give equal files."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=file_format, dpi=200, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()
