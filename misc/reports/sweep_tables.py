"""Tables of a sweep's report: header and rows of text."""

import math
from collections.abc import Mapping, Sequence

from misc.evaluation.curves import LEAST_OVERLAP, Point, bd_rate, bytes_at
from misc.reports.link import BANDWIDTHS, Route
from misc.sweeps.table import NOT_RUN, SweepRow, shown


def curves_table(curves: Mapping[str, Sequence[Point]], teacher: float, losses: Sequence[float]) -> list[list[str]]:
    """Return one row per curve: its ranges, and its bytes at losses, in points, against the teacher's top-1."""
    table = [["", "points", "bytes/image", "top-1 %", *(f"bytes at {loss:g} loss" for loss in losses)]]
    for name, points in curves.items():
        ranges = [
            range_of([point.bytes_per_image for point in points], ",.0f"),
            range_of([point.top1 for point in points], ".1f"),
        ]
        table.append([name, str(len(points)), *ranges, *(size_at(points, teacher - loss) for loss in losses)])
    return table


def bd_rate_table(curves: Mapping[str, Sequence[Point]], anchors: Sequence[str]) -> list[list[str]]:
    """Return one row per curve with its BD-rates against the anchors; curves without any are left out."""
    table = [["BD-rate against", *anchors]]
    for name, points in curves.items():
        found = [bd_rate(curves[anchor], points) if anchor != name else None for anchor in anchors]
        cells = [f"{each.percent:+.0f} % ({each.low:.1f}-{each.high:.1f})" if each else "" for each in found]
        if any(cells):
            table.append([name, *cells])
    return table


def reading_note(teacher: float, images: int, losses: Sequence[float]) -> str:
    """Return how to read the tables, and the standard error of an accuracy over so many images."""
    chance = teacher / 100
    *most, last = (f"{loss:g}" for loss in losses)
    named = f"{', '.join(most)} and {last}" if most else last
    error = 100 * math.sqrt(chance * (1 - chance) / images)
    return (
        "Bytes are everything sent per image; of a codec that is a whole file, headers included, and its images go to "
        "the untouched teacher. Bytes at a loss: where the curve crosses "
        f"{named} points below the teacher. BD-rate against an anchor: "
        "Bjontegaard delta, in brackets the top-1 over which it is taken; empty where two curves share less than "
        f"{LEAST_OVERLAP:g} point. Curves are monotone cubics through the points that no cheaper one equals or beats. "
        f"Each top-1 is of {images:,} images, on which the best epochs were chosen too; its standard error is about "
        f"{error:.1f} points over images, to which that over seeds of a training comes."
    )


def size_at(points: Sequence[Point], top1: float) -> str:
    """Return the bytes at an accuracy, or why there are none."""
    size = bytes_at(points, top1)
    if size:
        return f"{size:,.0f}"
    reached = [point.bytes_per_image for point in points if point.top1 >= top1]
    return f"at most {min(reached):,.0f}" if reached else "not reached"


def range_of(values: Sequence[float], form: str) -> str:
    """Return `least to greatest`, or the only value."""
    ends = f"{min(values):{form}}", f"{max(values):{form}}"
    return ends[0] if len(values) == 1 else " to ".join(ends)


def times_table(routes: Mapping[str, Route]) -> list[list[str]]:
    """Return the times from image to answer: what was measured, then milliseconds by bandwidth.

    The last columns give each codec's time as a multiple of the student's.

    Args:
        routes: the student's first, then those of codecs.
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


def student_title(row: SweepRow, loss: float) -> str:
    """Return why a student was chosen for a loss, its name and its own loss, with its margin if that is known."""
    reached = row.predictive_loss <= loss
    rule = f"At most {loss:g} points of loss" if reached else f"No student loses at most {loss:g} points; the least"
    margin = "" if row.predictive_loss_margin is None else f" ± {row.predictive_loss_margin:.2f}"
    return f"{rule}: {row.run} ({row.top1:.2f} %, {row.predictive_loss:.2f}{margin} points)"


def runs_table(rows: Sequence[SweepRow]) -> list[list[str]]:
    """Return one row per run, with those that were not run; ± is the margin of the loss's 95 % interval."""
    table = [["run", "method", "seed", "top-1 %", "loss", "±", "bytes/image", "encode ms", "decode ms", "training s"]]
    for row in rows:
        loss = row.predictive_loss, row.predictive_loss_margin
        results = (row.top1, *loss, row.sent_bytes, row.encode_ms, row.decode_ms, row.training_s)
        cells = map(shown, results) if row.was_run else [NOT_RUN] * len(results)
        table.append([row.run, row.method, str(row.seed), *cells])
    return table
