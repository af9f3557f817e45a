"""The table that a sweep writes, read again: rows, the students of each method, their teacher."""

import csv
import io
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from misc.errors import UserError
from misc.evaluation.accuracy import KILOBYTE
from misc.evaluation.curves import Point
from misc.files import ROOT, write_atomically
from misc.sweeps.plan import Run

NEEDED = ("run", "method", "set", "seed", "images", "top1", "predictive_loss", "sent_bytes", "encode_ms", "decode_ms")
NOT_RUN = "not run"
Row = Mapping[str, str]
_BEGINNING = re.compile(r"([^/\s\"]+)/weights\.safetensors")
_LMBDA = re.compile(r"(?:^| )lmbda=(\S+)")


class Student(NamedTuple):
    """One setting of a method, averaged over its seeds.

    Attributes:
        seeds: how many.
        point: mean rate and accuracy.
        spread: standard deviation of top-1 over the seeds, points; None of one seed.
    """

    seeds: int
    point: Point
    spread: float | None


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


def tested(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of students that were run."""
    return [row for row in rows if row["images"] != NOT_RUN and row["sent_bytes"]]


def point_of(row: Row) -> Point:
    return Point(float(row["sent_bytes"]), float(row["top1"]))


def beginning(row: Row) -> str | None:
    """Returns the run whose weights a run begins with; None if it begins from scratch."""
    found = _BEGINNING.search(row["set"])
    return found[1] if found else None


def lmbda(row: Row) -> str | None:
    """Returns the lmbda that the sweep set for a run; None where that is its config's."""
    found = _LMBDA.search(row["set"])
    return found[1] if found else None


def students_of(rows: Sequence[Row]) -> dict[str, list[Student]]:
    """Returns the students of each method by rising rate; rows that were not run are left out."""
    seeds: dict[tuple[str, str], list[Point]] = {}
    for row in tested(rows):
        seeds.setdefault((row["method"], row["set"]), []).append(point_of(row))
    methods: dict[str, list[Student]] = {}
    for (method, _), points in seeds.items():
        accuracies = [point.top1 for point in points]
        mean = Point(statistics.mean(point.bytes_per_image for point in points), statistics.mean(accuracies))
        spread = statistics.stdev(accuracies) if len(points) > 1 else None
        methods.setdefault(method, []).append(Student(len(points), mean, spread))
    return {name: sorted(students, key=lambda student: student.point) for name, students in methods.items()}


def teacher_top1(rows: Sequence[Row]) -> float:
    """Returns the top-1 of the teacher that all students share.

    Raises:
        UserError: the students have several.
    """
    found = {
        round(float(row["top1"]) + float(row["predictive_loss"]), 2) for row in tested(rows) if row["predictive_loss"]
    }
    if len(found) != 1:
        raise UserError(f"the students have teachers of {sorted(found)} % top-1: report those of one teacher at a time")
    return found.pop()


def recommended(rows: Sequence[Row], loss: float) -> Row:
    """Returns the student that sends least among those within `loss` points of the teacher, or loses least of all."""
    students = [row for row in tested(rows) if row["predictive_loss"]]
    near = [row for row in students if float(row["predictive_loss"]) <= loss]
    if near:
        return min(near, key=lambda row: float(row["sent_bytes"]))
    return min(students, key=lambda row: (float(row["predictive_loss"]), float(row["sent_bytes"])))


COLUMNS = (
    *("run", "method", "config", "set", "seed", "images", "top1", "top5", "predictive_loss"),
    *("first_loss", "last_loss", "training_s", "git_revision"),
    *("string_bytes", "sent_bytes", "bpp_bytes", "bpp_likelihood", "edge_parameters", "encode_ms", "decode_ms"),
)


def row_of(run: Run) -> dict[str, object]:
    """Returns a run's row: what was run, what came out, and what it cost; only the first where it was not run."""
    row: dict[str, object] = {
        "run": run.name,
        "method": run.method,
        "config": run.config.relative_to(ROOT).as_posix() if run.config.is_relative_to(ROOT) else str(run.config),
        "set": " ".join(run.overrides),
        "seed": run.seed,
    }
    if not run.is_done():
        return row | {"images": NOT_RUN}
    test = json.loads((run.folder / "test.json").read_text())
    epochs = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    student = test.get("student") or test["model"]
    row |= {
        "images": student["images"],
        "top1": round(student["top1"], 3),
        "top5": round(student["top5"], 3),
        "predictive_loss": round(test["predictive_loss"], 3) if "predictive_loss" in test else "",
        "first_loss": round(epochs[0]["loss"], 1),
        "last_loss": round(epochs[-1]["loss"], 1),
        "training_s": round(sum(epoch["seconds"] for epoch in epochs)),
        "git_revision": test["git_revision"],
    }
    if "student" in test:
        row |= {
            "string_bytes": round(student["strings_kb"] * KILOBYTE, 2),
            "sent_bytes": round(student["sent_kb"] * KILOBYTE, 2),
            "bpp_bytes": round(student["bpp_bytes"], 5),
            "bpp_likelihood": round(student["bpp_likelihood"], 5),
            "edge_parameters": student["edge_parameters"],
        }
        timed = run.folder / "latency.json"
        row |= {name: round(ms, 1) for name, ms in json.loads(timed.read_text()).items()} if timed.is_file() else {}
    return row


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes the table as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def table(rows: list[dict[str, object]]) -> str:
    """Lays the rows of what was run out as a Markdown table, and says how many were not."""
    columns = {
        "run": "run",
        "top1": "top-1 %",
        "predictive_loss": "loss, points",
        "first_loss": "first epoch's loss",
        "last_loss": "last",
        "string_bytes": "strings, bytes",
        "bpp_bytes": "bpp, bytes",
        "bpp_likelihood": "bpp, likelihoods",
        "encode_ms": "encode ms",
        "decode_ms": "decode ms",
        "training_s": "training s",
    }
    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    done = [row for row in rows if row["images"] != NOT_RUN]
    lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in done]
    return "\n".join([*lines, *([f"\n{len(rows) - len(done)} of {len(rows)} runs: {NOT_RUN}"] if done != rows else [])])
