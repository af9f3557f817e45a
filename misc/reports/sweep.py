"""The report on a sweep: tables, sections and pictures beside image codecs."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from misc.errors import UserError
from misc.evaluation.curves import LEAST_OVERLAP, Point, bd_rate, bytes_at
from misc.evaluation.evaluate import test_loader
from misc.progress import progress_bar
from misc.reports import page, plots
from misc.reports.link import BANDWIDTHS, Route
from misc.reports.paired import Comparison
from misc.reports.paired_table import RULE, conclusion, paired_table
from misc.sweeps.table import NOT_RUN, Row, tested
from misc.tables import markdown
from misc.training.run_folder import load_student
from saliency_maps.analysis.drawing import png
from saliency_maps.analysis.spending_sheet import samples_of, sheet
from saliency_maps.cam_prep.teacher import teacher_from_config

SMALL_LOSS = 0.5  # points of top-1
LOSSES = (SMALL_LOSS, 2.0)
BASELINE = "Entropic Student"
UNWEIGHTED = "second half, no weights"  # the method that the others with its beginnings are compared with
WEIGHTS = "Weights of the distortion"


def images_of(rows: Sequence[Row]) -> int:
    """Returns on how many images the students were tested.

    Raises:
        UserError: some on others than others.
    """
    found = {int(row["images"]) for row in tested(rows)}
    if len(found) > 1:
        raise UserError(f"the students were tested on {sorted(found)} images: report those of one test at a time")
    return found.pop()


def route_of(row: Row) -> Route:
    """Returns a student's route.

    Raises:
        UserError: it has not been timed.
    """
    if not row["encode_ms"]:
        raise UserError(f"{row['run']} is not timed yet: scripts/sweep.py does that at its end")
    return Route(*(float(row[column]) for column in ("sent_bytes", "encode_ms", "decode_ms")))


def spending(run: Path) -> dict[str, bytes]:
    """Returns the pictures of what the student of a run folder sends: how much by image, and for which positions."""
    student, config = load_student(run, torch.device("cpu"))
    loader = test_loader(config)
    num_bytes = []
    with torch.inference_mode(), progress_bar(None, "sizes", len(loader.dataset)) as bar:
        for x, *_ in loader:
            num_bytes += map(len, student.encode(x))
            bar.update(len(x))
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    teacher = teacher_from_config(run / "config.resolved.yaml")
    boxes = Path(images.root).parent / "val_boxes"
    return {
        "sizes.svg": plots.rendered(plots.size_histogram(num_bytes)),
        "spending.png": png(sheet(samples_of(student, teacher, images, boxes))),
    }


def curves_table(curves: Mapping[str, Sequence[Point]], teacher: float) -> list[list[str]]:
    """Returns header and a row for each curve: its points, and its bytes at small losses."""
    table = [["", "points", "bytes/image", "top-1 %", *(f"bytes at {loss:g} loss" for loss in LOSSES)]]
    for name, points in curves.items():
        spans = [
            spanned([point.bytes_per_image for point in points], ",.0f"),
            spanned([point.top1 for point in points], ".1f"),
        ]
        table.append([name, str(len(points)), *spans, *(size_at(points, teacher - loss) for loss in LOSSES)])
    return table


def rates_table(curves: Mapping[str, Sequence[Point]], anchors: Sequence[str]) -> list[list[str]]:
    """Returns header and a row for each curve: its Bjontegaard deltas to the anchors. A single point has none."""
    table = [["rate against", *anchors]]
    for name, points in curves.items():
        deltas = [bd_rate(curves[anchor], points) if anchor != name else None for anchor in anchors]
        cells = [f"{delta.percent:+.0f} % ({delta.low:.1f}-{delta.high:.1f})" if delta else "" for delta in deltas]
        if any(cells):
            table.append([name, *cells])
    return table


def reading_note(teacher: float, images: int) -> str:
    """Says how the tables are to be read, and how far accuracies of so many images can be trusted."""
    chance = teacher / 100
    error = 100 * math.sqrt(chance * (1 - chance) / images)
    return (
        "Bytes are everything sent per image; of a codec that is a whole file, headers included, and its images go to "
        "the untouched teacher. Bytes at a loss: where the curve crosses "
        f"{' and '.join(f'{loss:g}' for loss in LOSSES)} points below the teacher. Rate against an anchor: Bjontegaard "
        "delta, in brackets the top-1 over which it is taken; empty where two curves share less than "
        f"{LEAST_OVERLAP:g} point. Curves are monotone cubics through the points that no cheaper one equals or beats. "
        f"Each top-1 is of {images:,} images, on which the best epochs were chosen too; its standard error is about "
        f"{error:.1f} points over images, to which that over seeds of a training comes."
    )


def size_at(points: Sequence[Point], top1: float) -> str:
    """Returns the bytes at an accuracy, or why there are none."""
    size = bytes_at(points, top1)
    if size:
        return f"{size:,.0f}"
    reached = [point.bytes_per_image for point in points if point.top1 >= top1]
    return f"at most {min(reached):,.0f}" if reached else "not reached"


def spanned(values: Sequence[float], form: str) -> str:
    """Returns the least and the greatest value, or the only one."""
    ends = f"{min(values):{form}}", f"{max(values):{form}}"
    return ends[0] if len(values) == 1 else " to ".join(ends)


def times_table(routes: Mapping[str, Route]) -> list[list[str]]:
    """Returns header and rows: what was measured, then milliseconds from image to answer by bandwidth.

    The last columns say how many times the student's a codec's time is.
    """
    student, *codecs = routes
    table = [["", *routes, *(f"{name}, times" for name in codecs)]]
    table.append(["encode, measured", *(f"{route.encode_ms:.1f}" for route in routes.values()), *("" for _ in codecs)])
    table.append(["decode, measured", *(f"{route.decode_ms:.1f}" for route in routes.values()), *("" for _ in codecs)])
    table.append(["bytes", *(f"{route.bytes_per_image:,.0f}" for route in routes.values()), *("" for _ in codecs)])
    for bandwidth in BANDWIDTHS:
        times = {name: route.milliseconds(bandwidth) for name, route in routes.items()}
        factors = (f"{times[name] / times[student]:.1f}" for name in codecs)
        table.append([f"{bandwidth:g} Mbit/s, computed", *(f"{time:,.1f}" for time in times.values()), *factors])
    return table


def weights_markdown(weights: Sequence[Comparison]) -> list[str]:
    """Returns the comparison of weights, if there is one, as paragraphs of Markdown."""
    return [f"### {WEIGHTS}\n", markdown(paired_table(weights)), f"{conclusion(weights)} {RULE}\n"] if weights else []


def all_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Returns header and every run's row, those that were not run included."""
    table = [["run", "method", "seed", "top-1 %", "loss", "bytes/image", "encode ms", "decode ms", "training s"]]
    columns = ("top1", "predictive_loss", "sent_bytes", "encode_ms", "decode_ms", "training_s")
    for row in rows:
        absent = NOT_RUN if row["images"] == NOT_RUN else ""
        table.append([row["run"], row["method"], row["seed"], *(row.get(name) or absent for name in columns)])
    return table


def accuracy_section(tables: Sequence[list[list[str]]], note: str, teacher: float, images: int) -> list[str]:
    """Returns the page's HTML on accuracy against bytes."""
    return [
        f"<p>Students that send a compressed feature, and image codecs, in front of the same teacher ({teacher:.2f} % "
        f"top-1). {images:,} validation images, none of which was trained on, but the best epoch was chosen on them. "
        "Every student's accuracy and bytes come from real streams, decoded.</p>",
        *map(page.table, tables),
        f'<p class="note">{note}</p>',
        "<h2>Accuracy against size</h2>",
        page.figure(
            "rate_accuracy.svg",
            "Top-1 accuracy against bytes per image for every method, the codecs and the teacher",
            "Top-1 against everything sent per image, on a logarithmic axis. Bars: standard deviation over seeds. The "
            "other axis begins 30 points below the teacher.",
        ),
    ]


def times_section(times: Mapping[float, list[list[str]]], chosen: Mapping[float, Row]) -> list[str]:
    """Returns the page's HTML on the time from image to answer, at each of the losses."""
    parts = [
        "<h2>From image to answer</h2>",
        '<p class="note">Milliseconds. A codec sends what it needs for the student\'s top-1, and is left out where it '
        "never reaches that. Encoding and decoding with classification are measured, single images on one core of one "
        "machine, which stands for device and server alike; the rows by bandwidth are computed from them and the "
        "bytes, over a link without delay or headers of its own.</p>",
    ]
    for loss, row in chosen.items():
        title = student_named(row, loss)
        parts += [f"<h3>{html.escape(title)}</h3>", page.table(times[loss])]
        parts += [page.figure(f"times_{loss:g}.svg", f"Time against bandwidth, {title}", "Both axes are logarithmic.")]
    return parts


def student_named(row: Row, loss: float) -> str:
    """Names the student that was chosen for a loss, and what it loses itself."""
    reached = float(row["predictive_loss"]) <= loss
    rule = f"At most {loss:g} points of loss" if reached else f"No student loses at most {loss:g} points; the least"
    return f"{rule}: {row['run']} ({float(row['top1']):.2f} %, {float(row['predictive_loss']):.2f} points)"


def weights_section(weights: Sequence[Comparison]) -> list[str]:
    """Returns the page's HTML on what weights the distortion, if that is compared."""
    if not weights:
        return []
    return [
        f"<h2>{WEIGHTS}</h2>",
        f"<p>{html.escape(conclusion(weights))}</p>",
        page.table(paired_table(weights)),
        f'<p class="note">{RULE}</p>',
        page.figure(
            "weights.svg",
            "Differences in top-1 at equal bytes",
            f"Top-1 at equal bytes less that of {weights[0].method}. Dots: seeds; bars: mean, 95 % interval.",
        ),
    ]


def pictures_section(best: Row) -> list[str]:
    """Returns the page's HTML on where and how much a student spends, and on the training of all."""
    return [
        "<h2>Where the student spends</h2>",
        page.figure(
            "spending.png",
            "Validation images with their boxes, saliency maps, and bits of each position",
            f"Of {best['run']}. Each triple: a validation image with its box, which no training saw; the teacher's "
            "saliency map (XGradCAM of three stages); the bits of each position of the latent, as its likelihoods "
            "promise (viridis: dark blue the fewest, yellow the most that any position here takes).",
        ),
        "<h2>Sizes</h2>",
        page.figure("sizes.svg", "Histogram of bytes per image", f"Everything that {best['run']} sends, by image."),
        "<h2>Training</h2>",
        page.figure(
            "training.svg",
            "Training curves of all runs",
            "Top-1 on the validation images, estimated with rounding, and the loss of each epoch.",
        ),
    ]
