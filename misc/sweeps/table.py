"""The table of a sweep's results: the sweep writes it, the report reads it."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from misc.errors import UserError
from misc.evaluation.accuracy import KILOBYTE
from misc.evaluation.curves import Point
from misc.files import ROOT, write_atomically
from misc.sweeps.plan import Run

NOT_RUN = "not run"
SPREAD = 0.0025  # at most, of one teacher's top-1 as the sum of two percentages with three decimals


class SweepRow(NamedTuple):
    """The result of one run. What is unknown, as the run was not run, or does not apply (a teacher's rate), is None.

    Attributes:
        run: name, also of the run folder; of a student of variable rate, with the level's rate after an @.
        method: name of the curve that the run is a point of.
        config: path of the config, relative to the repository where it lies in it.
        set: overrides of the config, as the command line writes them, separated by spaces.
        begins_with: name of the run whose weights it begins with.
        lmbda: weight of the rate in the loss; of a student of variable rate, the level's.
        seed: seed of the training.
        images: number of test images; in the file, "not run" stands for None.
        top1: percent, after decoding real bitstreams.
        top5: percent.
        predictive_loss: the teacher's top-1 minus this one, in points.
        predictive_loss_margin: half the width of its 95 % confidence interval over the test images, in points.
        first_loss: mean training loss of the first epoch.
        last_loss: mean training loss of the last epoch.
        training_s: duration of all epochs in seconds.
        git_revision: commit that was tested.
        string_bytes: mean size of the entropy-coded strings alone.
        sent_bytes: mean size of everything sent.
        bpp_bytes: bits per pixel of the strings.
        bpp_likelihood: bits per pixel that the likelihoods estimate.
        edge_parameters: parameters of the encoder.
        encode_ms: time to encode one image.
        decode_ms: time to decode and classify one image.
    """

    run: str
    method: str
    config: str
    set: str
    begins_with: str | None
    lmbda: float | None
    seed: int
    images: int | None = None
    top1: float | None = None
    top5: float | None = None
    predictive_loss: float | None = None
    predictive_loss_margin: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    training_s: int | None = None
    git_revision: str | None = None
    string_bytes: float | None = None
    sent_bytes: float | None = None
    bpp_bytes: float | None = None
    bpp_likelihood: float | None = None
    edge_parameters: int | None = None
    encode_ms: float | None = None
    decode_ms: float | None = None

    @property
    def was_run(self) -> bool:
        """Whether there are results."""
        return self.images is not None

    @property
    def folder_name(self) -> str:
        """The name of the run folder."""
        return self.run.partition("@")[0]

    @property
    def rate(self) -> float | None:
        """The rate of a student of variable rate at this level; None with one rate."""
        rate = self.run.partition("@")[2]
        return float(rate) if rate else None

    @property
    def point(self) -> Point:
        """Rate and accuracy of a student."""
        return Point(self.sent_bytes, self.top1)


COLUMNS = SweepRow._fields


class Student(NamedTuple):
    """One setting of a method, averaged over its seeds.

    Attributes:
        seeds: number of seeds.
        point: mean rate and accuracy.
        spread: standard deviation of top-1 over the seeds, in points; None for a single seed.
    """

    seeds: int
    point: Point
    spread: float | None


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def rows_of(run: Run) -> list[SweepRow]:
    """Return a run's row, with its results if it is done; of a student of variable rate, one row for each level."""
    config = run.config.relative_to(ROOT).as_posix() if run.config.is_relative_to(ROOT) else str(run.config)
    row = SweepRow(run.name, run.method, config, " ".join(run.overrides), run.begins_with, run.lmbda, run.seed)
    if not run.is_done():
        return [row]
    test = json.loads((run.folder / "test.json").read_text())
    epochs = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    if "levels" not in test:
        return [_with_results(row, run, test, test.get("student") or test["model"], epochs)]
    return [
        _with_results(
            row._replace(run=f"{run.name}@{tested['rate']:.4g}", lmbda=tested["lmbda"]), run, test, tested, epochs
        )
        for tested in test["levels"]
    ]


def _with_results(row: SweepRow, run: Run, test: dict, tested: dict, epochs: list[dict]) -> SweepRow:
    compared = tested if "predictive_loss" in tested else test
    loss, margin = (compared.get(name) for name in ("predictive_loss", "predictive_loss_margin"))
    row = row._replace(
        images=tested["images"],
        top1=round(tested["top1"], 3),
        top5=round(tested["top5"], 3),
        predictive_loss=None if loss is None else round(loss, 3),
        predictive_loss_margin=None if margin is None else round(margin, 3),
        first_loss=round(epochs[0]["loss"], 1),
        last_loss=round(epochs[-1]["loss"], 1),
        training_s=round(sum(epoch["seconds"] for epoch in epochs)),
        git_revision=test["git_revision"],
    )
    return row._replace(**_rate_and_latency(run, tested)) if "student" in test else row


def _rate_and_latency(run: Run, student: dict[str, float]) -> dict[str, float]:
    timed = run.folder / "latency.json"
    milliseconds = json.loads(timed.read_text()) if timed.is_file() else {}
    return {
        "string_bytes": round(student["strings_kb"] * KILOBYTE, 2),
        "sent_bytes": round(student["sent_kb"] * KILOBYTE, 2),
        "bpp_bytes": round(student["bpp_bytes"], 5),
        "bpp_likelihood": round(student["bpp_likelihood"], 5),
        "edge_parameters": student["edge_parameters"],
        **{name: round(time, 1) for name, time in milliseconds.items()},
    }


def write_rows(path: Path, rows: Sequence[SweepRow]) -> None:
    """Write the table as CSV, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row._asdict() | ({} if row.was_run else {"images": NOT_RUN}) for row in rows)
    write_atomically(path, text.getvalue().encode())


def summary(rows: Sequence[SweepRow]) -> str:
    """Return the results as a Markdown table, and a line on how many runs were not run."""
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
    done = [row for row in rows if row.was_run]
    lines += [f"| {' | '.join(shown(getattr(row, column)) for column in columns)} |" for row in done]
    return "\n".join([*lines, *([f"\n{len(rows) - len(done)} of {len(rows)} runs: {NOT_RUN}"] if done != rows else [])])


def shown(value: object) -> str:
    """Return the text of a cell; None is empty."""
    return "" if value is None else str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[SweepRow]:
    """Read a sweep's table.

    Raises:
        UserError: the file is missing, or is not a table of scripts/sweep.py with all its columns and some rows.
    """
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            cells, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"no results at {path} ({error}): write them with `python scripts/sweep.py`") from None
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}: `python scripts/sweep.py` writes the table again")
    if not cells:
        raise UserError(f"{path} has no rows: write them with `python scripts/sweep.py`")
    return [_parsed(row, f"{path}, row {number}") for number, row in enumerate(cells, start=1)]


def _parsed(cells: dict[str, str], place: str) -> SweepRow:
    values = {}
    for column, kind in get_type_hints(SweepRow).items():
        try:
            values[column] = _value(kind, cells[column])
        except (TypeError, ValueError):
            raise UserError(f"{place}: {column} is '{cells[column]}', which is not a value of this column") from None
    return SweepRow(**values)


def _value(kind: Any, text: str | None) -> Any:
    choices = get_args(kind)  # of `float | None`
    if not choices:
        return kind(text)
    return None if text in ("", NOT_RUN) else choices[0](text)


def tested_students(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Return the rows of students that were run."""
    return [row for row in rows if row.was_run and row.sent_bytes is not None]


def students_of(rows: Sequence[SweepRow]) -> dict[str, list[Student]]:
    """Return the students of each method by rising rate, without those that were not run.

    Runs of a method with the same overrides and lmbda differ in the seed alone.
    """
    seeds: dict[tuple[str, str, float | None], list[Point]] = {}
    for row in tested_students(rows):
        seeds.setdefault((row.method, row.set, row.lmbda), []).append(row.point)
    methods: dict[str, list[Student]] = {}
    for (method, *_), points in seeds.items():
        accuracies = [point.top1 for point in points]
        mean = Point(statistics.mean(point.bytes_per_image for point in points), statistics.mean(accuracies))
        spread = statistics.stdev(accuracies) if len(points) > 1 else None
        methods.setdefault(method, []).append(Student(len(points), mean, spread))
    return {name: sorted(students, key=lambda student: student.point) for name, students in methods.items()}


def curves_of(path: Path) -> dict[str, list[Point]]:
    """Read the curve of each method, averaged over seeds, from a sweep's table; raises what `read_rows` raises."""
    return {method: [student.point for student in its] for method, its in students_of(read_rows(path)).items()}


def teacher_top1(rows: Sequence[SweepRow]) -> float:
    """Return the top-1 of the teacher that all students share.

    Raises:
        UserError: the students have different teachers.
    """
    students = tested_students(rows)
    found = [row.top1 + row.predictive_loss for row in students if row.predictive_loss is not None]
    if not found or max(found) - min(found) > SPREAD:
        shown_once = sorted({round(top1, 2) for top1 in found})
        raise UserError(f"the students have teachers of {shown_once} % top-1: report one teacher at a time")
    return round(statistics.median(found), 2)


def recommended(rows: Sequence[SweepRow], loss: float) -> SweepRow:
    """Return the student with the fewest bytes among those within `loss` points of the teacher, or else the best."""
    students = [row for row in tested_students(rows) if row.predictive_loss is not None]
    near = [row for row in students if row.predictive_loss <= loss]
    if near:
        return min(near, key=attrgetter("sent_bytes"))
    return min(students, key=attrgetter("predictive_loss", "sent_bytes"))
