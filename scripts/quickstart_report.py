"""Renders a report on tested students: results.csv, a rate-accuracy plot, a sheet of saliency maps, one static page."""

import argparse
import io
import math
import shlex
import sys
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image, ImageChops, ImageFilter

from misc.datasets.image_folder import read_rgb
from misc.errors import exit_on_user_error
from misc.evaluation.codec_table import CodecPoint, by_codec, read_points
from misc.files import write_atomically
from misc.progress import progress_bar
from misc.reports import quickstart as report
from misc.reports.quickstart import Sample, caption, find_samples, maps_and_masks
from saliency_maps.analysis.drawing import overlay, png
from saliency_maps.analysis.objects import read_mask
from saliency_maps.analysis.scores import score_maps
from saliency_maps.map_folder import MapFolder

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers differ too.
CODEC_STYLES = {"JPEG": ("#D55E00", "s"), "WebP": ("#0072B2", "^")}
STUDENT_COLOUR = "#009E73"
GREY = "#5b6470"
STYLE = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "report", "axes.linewidth": 0.8}

SHEET_IMAGES, SHEET_COLUMNS = 24, 4
TILE, GAP, SEAM = 192, 24, 4  # pixels


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", required=True, action="append", type=Path, metavar="DIR", help="may be repeated")
    parser.add_argument("--codecs", required=True, type=Path, metavar="CSV", help="from scripts/evaluate_codecs.py")
    parser.add_argument("--maps", required=True, type=Path, metavar="DIR", help="saliency maps of the val images")
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="digits: val/ and val_masks/")
    output = report.ROOT / "resources" / "quickstart" / "report"
    parser.add_argument(
        "--output", type=Path, default=output, metavar="DIR", help="default: resources/quickstart/report"
    )
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    runs, points = report.read_runs(args.run_dir), read_points(args.codecs)
    maps = MapFolder(args.maps)
    samples = find_samples(args.dataset, maps)
    rows, table = report.results_rows(runs, points, args.codecs), report.summary_table(runs, points)
    scores = score_maps(progress_bar(maps_and_masks(samples, maps), "scoring maps", len(samples)))
    arguments = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "scripts/quickstart_report.py", *arguments])
    conditions = report.conditions(runs, maps.manifest.get("command", "unknown"), command)
    figure = rate_accuracy(runs, points)
    files = {
        "results.csv": report.results_csv(rows).encode(),
        "rate_accuracy.png": rendered(figure, "png"),
        "rate_accuracy.svg": rendered(figure, "svg"),
        "saliency.png": png(saliency_sheet(samples, maps)),
        "index.html": report.page(table, "rate_accuracy.svg", "saliency.png", caption(scores), conditions).encode(),
    }
    for name, content in files.items():
        write_atomically(args.output / name, content)
    print(f"\n{report.text_table(table)}\n\n{caption(scores)}\n")
    print("\n".join(str(args.output / name) for name in files))


# ---------------------------------------------------------------------------------------------------------------------
# Rate and accuracy
# ---------------------------------------------------------------------------------------------------------------------


def rate_accuracy(runs: Sequence[report.Run], points: Sequence[CodecPoint]) -> Figure:
    """Plots top-1 against bytes per image: codecs as lines, students as labelled markers, the teacher as a line."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.subplots()
        for name, curve in by_codec(points).items():
            colour, marker = CODEC_STYLES[name]
            sizes, accuracies = zip(*sorted((point.bytes_per_image, point.top1) for point in curve), strict=True)
            axes.plot(sizes, accuracies, color=colour, marker=marker, markersize=5, linewidth=1.6, label=name)
        teacher = report.teacher_of(runs, points)["top1"]
        axes.axhline(teacher, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, label="teacher, whole image")
        sizes, accuracies = [run.bytes_per_image for run in runs], [run.student["top1"] for run in runs]
        style = {"marker": "o", "s": 64, "edgecolors": "white", "linewidths": 0.8, "zorder": 4}
        axes.scatter(sizes, accuracies, color=STUDENT_COLOUR, label="student", **style)
        style_axes(axes, lowest=min(*accuracies, *(point.top1 for point in points)))
        label_students(axes, runs, teacher)
        figure.legend(loc="outside upper left", ncols=5, frameon=False, columnspacing=2)
        return figure


def style_axes(axes: Axes, lowest: float) -> None:
    """Sets scales, ticks and names; `lowest` is the smallest top-1 that is shown."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    bottom = max(0, 5 * math.floor((lowest - 1) / 5))
    axes.set_ylim(bottom, 100 + 0.04 * (100 - bottom))
    axes.set_xlabel("bytes per image")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def label_students(axes: Axes, runs: Sequence[report.Run], teacher: float) -> None:
    """Writes the students' names in a column left of their markers, best on top, none over another.

    Args:
        axes: final but for the left end of its logarithmic x-axis.
        runs: best student first.
        teacher: top-1 at which its line lies, which no name may touch.
    """
    column = min(run.bytes_per_image for run in runs) / 1.2
    share = 0.02 + 0.012 * max(len(run.label) for run in runs)  # of the axis, what the longest name takes
    right = axes.get_xlim()[1]
    axes.set_xlim(left=(column / right**share) ** (1 / (1 - share)))
    bottom, top = axes.get_ylim()
    line = 0.05 * (top - bottom)  # of text
    heights = spread([run.student["top1"] for run in runs], line, teacher - 0.7 * line)
    for run, height in zip(runs, heights, strict=True):
        axes.annotate(
            run.label,
            (run.bytes_per_image, run.student["top1"]),
            (column, height),
            ha="right",
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "relpos": (1, 0.5), "shrinkA": 1},
        )


def spread(heights: Sequence[float], gap: float, ceiling: float) -> list[float]:
    """Moves descending heights down until all are below `ceiling` and neighbours are `gap` apart."""
    moved = []
    for height in heights:
        moved.append(min(height, ceiling))
        ceiling = moved[-1] - gap
    return moved


def rendered(figure: Figure, file_format: str) -> bytes:
    """Returns a figure as a file; equal figures give equal files."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=file_format, dpi=200, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Saliency maps
# ---------------------------------------------------------------------------------------------------------------------


def saliency_sheet(samples: Sequence[Sample], maps: MapFolder) -> Image.Image:
    """Draws pairs, image and map with outline; the first images of every class in turn, sorted by class."""
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    in_turn = (sample for sample in chain.from_iterable(zip_longest(*by_class.values())) if sample is not None)
    chosen = sorted(islice(in_turn, SHEET_IMAGES), key=lambda sample: sample.label)
    num_rows = math.ceil(len(chosen) / SHEET_COLUMNS)
    pair = TILE + SEAM + TILE + GAP
    sheet = Image.new("RGB", (SHEET_COLUMNS * pair + GAP, num_rows * (TILE + GAP) + GAP), "white")
    for number, sample in enumerate(chosen):
        row, column = divmod(number, SHEET_COLUMNS)
        x, y = GAP + column * pair, GAP + row * (TILE + GAP)
        sheet.paste(read_rgb(sample.image).resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y))
        sheet.paste(outlined_overlay(sample, maps.read(sample.saliency)), (x + TILE + SEAM, y))
    return sheet


def outlined_overlay(sample: Sample, saliency: np.ndarray) -> Image.Image:
    """Draws the map (h, w) in colour over the grey image, and the mask's outline in white."""
    image = read_rgb(sample.image).resize((TILE, TILE), Image.Resampling.BICUBIC)
    drawing = overlay(image, saliency)
    drawing.paste("white", mask=outline(sample.mask))
    return drawing


def outline(path: Path) -> Image.Image:
    """Returns the opacity, (TILE, TILE), of a smooth line around a mask; drawn at twice the size against stairs."""
    mask = Image.fromarray(read_mask(path)).convert("L").filter(ImageFilter.GaussianBlur(0.8))
    mask = mask.resize((2 * TILE, 2 * TILE), Image.Resampling.BICUBIC).point(lambda value: 255 * (value > 127))
    ring = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(7)), mask)
    return ring.resize((TILE, TILE), Image.Resampling.BOX)


if __name__ == "__main__":
    main()
