"""The report on a sweep beside image codecs: tables, plots and one page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from misc.config.entries import num_classes
from misc.config.load import Config, compose_config
from misc.deploy.class_names import class_names
from misc.errors import UserError, did_you_mean
from misc.evaluation.codec_table import CodecPoint, by_codec, check_same_test
from misc.evaluation.curves import Point
from misc.evaluation.evaluate import evaluation_loader
from misc.progress import progress_bar
from misc.reports import plots
from misc.reports.link import Route, codec_routes
from misc.reports.page import render
from misc.reports.paired import RULE, Comparison, comparisons, conclusion, paired_table, without_compared
from misc.reports.sweep_tables import (
    bd_rate_table,
    curves_table,
    reading_note,
    runs_table,
    student_title,
    times_table,
)
from misc.sweeps.table import Student, SweepRow, recommended, students_of, teacher_top1, tested_students
from misc.tables import markdown, text_table
from misc.training.run_folder import CONFIG, load_student
from saliency_maps.analysis.drawing import png
from saliency_maps.analysis.spending_sheet import samples_of, sheet
from saliency_maps.cam_prep.teacher import teacher_from_config

PAIRED = "Weights of the distortion"  # heading of the comparison seed by seed


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        rows: all runs.
        students: those of each method that has a curve, by rising rate.
        codecs: the points of each codec.
        anchors: methods to compare the curves with; all codecs are anchors too.
        teacher: top-1 in percent.
        images: number of test images.
        chosen: the recommended student for each loss of top-1, in points.
        routes: the routes from image to answer that are compared with it, for each loss.
        paired: methods compared seed by seed, the reference first; [] if there are none.
    """

    rows: Sequence[SweepRow]
    students: Mapping[str, Sequence[Student]]
    codecs: Mapping[str, Sequence[Point]]
    anchors: Sequence[str]
    teacher: float
    images: int
    chosen: Mapping[float, SweepRow]
    routes: Mapping[float, Mapping[str, Route]]
    paired: Sequence[Comparison]

    @property
    def note(self) -> str:
        """How to read the tables."""
        return reading_note(self.teacher, self.images, self.losses)

    @property
    def tables(self) -> list[list[list[str]]]:
        """The table of the curves, and that of their BD-rates."""
        curves = {name: [student.point for student in students] for name, students in self.students.items()}
        curves |= self.codecs
        return [
            curves_table(curves, self.teacher, self.losses),
            bd_rate_table(curves, [*self.anchors, *self.codecs]),
        ]

    @property
    def losses(self) -> list[float]:
        """The losses of top-1, in points, that the report looks at."""
        return list(self.chosen)

    @property
    def pictured(self) -> SweepRow:
        """The student recommended for the smallest loss, whose images are shown."""
        return self.chosen[min(self.chosen)]

    def times(self, loss: float) -> list[list[str]]:
        """Return the table of the times over a link for the student of a loss."""
        return times_table(self.routes[loss])


def analyse(
    rows: Sequence[SweepRow],
    points: Sequence[CodecPoint],
    anchors: Sequence[str],
    reference: str | None,
    losses: Sequence[float],
) -> Report:
    """Compare the runs of a sweep with each other and with image codecs.

    Args:
        rows: the sweep's table.
        points: all codecs.
        anchors: methods for BD-rates, as `anchors_among` returns them.
        reference: method of the comparison seed by seed, as `reference_among` returns it.
        losses: of top-1, in points: a student is recommended for each.

    Raises:
        UserError: nothing was run, a student was not timed, or the students and codecs differ in teacher or images.
    """
    curve_rows = without_compared(rows, reference)
    students = students_of(curve_rows)
    if not students:
        raise UserError("the table has no student that was run: make the runs with `python scripts/sweep.py`")
    teacher, images = teacher_top1(rows), _number_of_images(rows)
    check_same_test(points, teacher, images)
    codecs = by_codec(points)
    chosen = {loss: recommended(curve_rows, loss) for loss in losses}
    return Report(
        rows=rows,
        students=students,
        codecs={name: [Point(each.bytes_per_image, each.top1) for each in curve] for name, curve in codecs.items()},
        anchors=anchors,
        teacher=teacher,
        images=images,
        chosen=chosen,
        routes={loss: {"student": _route_of(row), **codec_routes(codecs, row.top1)} for loss, row in chosen.items()},
        paired=comparisons(rows, reference),
    )


def anchors_among(
    rows: Sequence[SweepRow], reference: str | None, given: Sequence[str] | None, default: str
) -> list[str]:
    """Return the methods that are anchors of the BD-rates.

    Args:
        rows: the sweep's table.
        reference: the method of the comparison seed by seed, whose methods have no curves.
        given: their names; None stands for the methods with two points or more whose names begin with `default`.
        default: beginning of the anchors' names.

    Raises:
        UserError: no method that was run has a given name.
    """
    students = students_of(without_compared(rows, reference))
    if given is None:
        return [name for name in students if name.startswith(default) and len(students[name]) > 1]
    check_methods(given, students, "--anchors")
    return list(given)


def check_methods(given: Sequence[str], students: Mapping[str, Sequence[Student]], flag: str) -> None:
    """Raise a UserError if no student of a given method was run."""
    for name in given:
        if name not in students:
            raise UserError(f"{flag} {name} is no method that was run{did_you_mean(name, students)}")


def reference_among(rows: Sequence[SweepRow], given: str | None, default: str) -> str | None:
    """Return the method that others are compared with seed by seed: `given`, or else `default`; None if it is absent.

    Raises:
        UserError: no method has the given name.
    """
    known = {row.method for row in rows}
    if given is not None and given not in known:
        raise UserError(f"--reference {given} is no method of the table{did_you_mean(given, known)}")
    wanted = given or default
    return wanted if wanted in known else None


def files_of(report: Report, runs: Path | None, plotted: Sequence[str] | None) -> dict[str, bytes]:
    """Return the content of each file of the report.

    Args:
        report: the tables and curves.
        runs: folder of the sweep's run folders, for training curves and pictures; None leaves them out.
        plotted: methods in the plot of rate against accuracy, beside the codecs; None stands for all.

    Raises:
        UserError: a plotted method was not run.
    """
    check_methods(plotted or (), report.students, "--plot")
    students = {name: report.students[name] for name in plotted or report.students}
    files = {
        "summary.md": summary(report).encode(),
        "rate_accuracy.svg": plots.rendered(plots.rate_accuracy(students, report.codecs, report.teacher)),
    }
    for loss in report.losses:
        files[f"times_{loss:g}.md"] = markdown(report.times(loss)).encode()
        files[f"times_{loss:g}.svg"] = plots.rendered(plots.times_over_a_link(report.routes[loss]))
    if report.paired:
        files["weights.svg"] = plots.rendered(plots.differences(report.paired))
    if runs:
        files["training.svg"] = plots.rendered(plots.training_curves(report.rows, runs))
        files |= _spending(runs, report.pictured)
    return {**files, "index.html": _page(report, has_pictures=runs is not None)}


def summary(report: Report) -> str:
    """Return the tables in Markdown."""
    parts = [*map(markdown, report.tables), f"{report.note}\n"]
    if report.paired:
        parts += [f"### {PAIRED}\n", markdown(paired_table(report.paired)), f"{conclusion(report.paired)} {RULE}\n"]
    return "\n".join(parts)


def text_of(report: Report) -> Iterator[str]:
    """Yield the tables as paragraphs for a terminal."""
    yield f"teacher {report.teacher:.2f} %"
    yield from map(text_table, report.tables)
    for loss, row in report.chosen.items():
        yield f"{student_title(row, loss)}, ms\n{text_table(report.times(loss))}"
    if report.paired:
        yield f"{PAIRED}\n{text_table(paired_table(report.paired))}\n{conclusion(report.paired)}"


def _page(report: Report, has_pictures: bool) -> bytes:
    choices = [
        {"title": student_title(row, loss), "times": report.times(loss), "plot": f"times_{loss:g}.svg"}
        for loss, row in report.chosen.items()
    ]
    comparison = report.paired and {
        "title": PAIRED,
        "conclusion": conclusion(report.paired),
        "rows": paired_table(report.paired),
        "rule": RULE,
        "reference": report.paired[0].method,
    }
    return render(
        "sweep.html",
        teacher=f"{report.teacher:.2f}",
        images=f"{report.images:,}",
        tables=report.tables,
        note=report.note,
        choices=choices,
        comparison=comparison,
        pictured=report.pictured.run if has_pictures else None,
        runs=runs_table(report.rows),
    )


def _spending(runs: Path, row: SweepRow) -> dict[str, bytes]:
    """Return pictures of the bytes per image and of the bit allocation of a student whose run folder is in `runs`."""
    run = runs / row.folder_name
    student, config = load_student(run, torch.device("cpu"))
    level = student.entropy_model.level_of(row.rate)
    loader = evaluation_loader(config)
    num_bytes: list[int] = []
    with torch.inference_mode(), progress_bar(None, "sizes", len(loader.dataset)) as bar:
        for x, *_ in loader:
            num_bytes += map(len, student.encode(x, level))
            bar.update(len(x))
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    boxes = Path(images.root).parent / "val_boxes"
    names = _names_of(compose_config(run / CONFIG))
    samples = samples_of(student, teacher_from_config(run / CONFIG), images, names, boxes, level)
    return {"sizes.svg": plots.rendered(plots.size_histogram(num_bytes)), "spending.png": png(sheet(samples))}


def _names_of(config: Config) -> Sequence[str]:
    """Return the names of the classes by index, or else their numbers."""
    number = num_classes(config)
    return class_names(config, number) or [*map(str, range(number))]


def _number_of_images(rows: Sequence[SweepRow]) -> int:
    """Return the number of images that all students were tested on.

    Raises:
        UserError: the students were tested on different numbers of images.
    """
    found = {row.images for row in tested_students(rows) if row.images is not None}
    if len(found) > 1:
        raise UserError(f"the students were tested on {sorted(found)} images: report one test set at a time")
    return found.pop()


def _route_of(row: SweepRow) -> Route:
    """Return a student's route from image to answer.

    Raises:
        UserError: it has not been timed.
    """
    if row.encode_ms is None or row.decode_ms is None:
        raise UserError(f"{row.run} is not timed yet: scripts/sweep.py does that at its end")
    return Route(row.sent_bytes, row.encode_ms, row.decode_ms)
