"""The report on tested students beside image codecs and saliency maps: results, plots and one page."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from misc.evaluation.accuracy import KILOBYTE
from misc.evaluation.codec_table import CodecPoint, by_codec, bytes_for_accuracy, check_same_test
from misc.evaluation.curves import Point
from misc.files import ROOT
from misc.progress import progress_bar
from misc.reports import plots
from misc.reports.page import render
from misc.sweeps.table import Student
from saliency_maps.analysis.objects import read_mask
from saliency_maps.analysis.outlined_sheet import Sample
from saliency_maps.analysis.scores import MapScores, score_maps
from saliency_maps.map_folder import MapFolder, map_names, relative_image_names


class Run(NamedTuple):
    """A tested student.

    Attributes:
        label: the run folder's path below the folder that all runs share.
        path: its test.json.
        results: the content of test.json, as `misc.evaluation.evaluate` writes it.
    """

    label: str
    path: Path
    results: dict

    @property
    def student(self) -> dict:
        """The results of the student."""
        return self.results["student"]

    @property
    def point(self) -> Point:
        """Rate and accuracy; everything sent counts, as the whole file of a codec does."""
        return Point(self.student["sent_kb"] * KILOBYTE, self.student["top1"])


class ResultsRow(NamedTuple):
    """One row of results.csv; kb is everything sent per image, predictive_loss the teacher's top-1 minus the row's."""

    method: str
    setting: str
    top1: float
    top5: float
    kb: float | None
    bpp: float | None
    predictive_loss: float
    encoder_parameters: int | None
    source: str


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the test results in run folders, best student first.

    Raises:
        UserError: a folder has no test results, or results without a student or a teacher.
    """
    shared = os.path.commonpath([folder.absolute().parent for folder in folders])
    runs = []
    for folder in folders:
        path = folder / "test.json"
        if not path.is_file():
            raise UserError(f"no test results at {path}: run main_classification_torchdistill.py with --test_only")
        results = json.loads(path.read_text())
        for part in ("student", "teacher"):
            if part not in results:
                raise UserError(f"{path} has no {part}: test a split classifier, without --student_only")
        runs.append(Run(os.path.relpath(folder.absolute(), shared), path, results))
    return sorted(runs, key=lambda run: -run.student["top1"])


def teacher_of(runs: Sequence[Run], points: Sequence[CodecPoint]) -> dict:
    """Return the test results of the teacher that all runs and codecs share.

    Raises:
        UserError: the results are of different teachers or images and cannot be compared.
    """
    teachers = [run.results["teacher"] for run in runs]
    if len({teacher["top1"] for teacher in teachers}) > 1:
        found = ", ".join(f"{run.label} {teacher['top1']:.2f} %" for run, teacher in zip(runs, teachers, strict=True))
        raise UserError(f"the runs' teachers differ in top-1 ({found}): report runs of one teacher at a time")
    counts = {run.student["images"] for run in runs}
    if len(counts) > 1:
        found = " and ".join(map(str, sorted(counts)))
        raise UserError(f"the runs were tested on different images ({found} of them): test them on the same")
    check_same_test(points, teachers[0]["top1"], counts.pop())
    return teachers[0]


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


def results_rows(runs: Sequence[Run], points: Sequence[CodecPoint], codecs_path: Path) -> list[ResultsRow]:
    """Return the rows of results.csv: the teacher, the students, the codecs."""
    teacher = teacher_of(runs, points)
    top1, top5 = teacher["top1"], teacher["top5"]
    return [
        ResultsRow("teacher", "", top1, top5, None, None, 0.0, None, portable(runs[0].path)),
        *(_student_row(run, top1) for run in runs),
        *(_codec_row(point, top1, codecs_path) for point in points),
    ]


def _student_row(run: Run, teacher_top1: float) -> ResultsRow:
    student = run.student
    return ResultsRow(
        method="student",
        setting=run.label,
        top1=student["top1"],
        top5=student["top5"],
        kb=student["sent_kb"],
        bpp=student["bpp_bytes"] * student["sent_kb"] / student["strings_kb"],  # bpp_bytes counts the strings alone
        predictive_loss=teacher_top1 - student["top1"],
        encoder_parameters=student["edge_parameters"],
        source=portable(run.path),
    )


def _codec_row(point: CodecPoint, teacher_top1: float, path: Path) -> ResultsRow:
    return ResultsRow(
        method=point.codec,
        setting=f"quality {point.quality}",
        top1=point.top1,
        top5=point.top5,
        kb=point.kb_per_image,
        bpp=point.bpp,
        predictive_loss=teacher_top1 - point.top1,
        encoder_parameters=None,
        source=portable(path),
    )


def results_csv(rows: Sequence[ResultsRow]) -> str:
    """Return the rows as CSV; what does not apply to a method is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ResultsRow._fields)
    writer.writerows([round(value, 6) if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue()


def portable(path: Path) -> str:
    """Return a path relative to the repository if it lies in it, else the absolute path."""
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def summary_table(runs: Sequence[Run], points: Sequence[CodecPoint]) -> list[list[str]]:
    """Return a header, and one row for the teacher and for each student.

    The last columns give the bytes a codec needs for the student's accuracy, as a multiple of the student's bytes.
    """
    curves = by_codec(points)
    teacher = teacher_of(runs, points)["top1"]
    header = ["", "top-1", "loss", "bytes/image", *(f"{name} needs" for name in curves)]
    rows = [["teacher", f"{teacher:.2f} %", "", "", *("" for _ in curves)]]
    for run in runs:
        size, top1 = run.point
        factors = (_factor(bytes_for_accuracy(curve, top1), size) for curve in curves.values())
        rows.append([run.label, f"{top1:.2f} %", f"{teacher - top1:.2f}", f"{size:.1f}", *factors])
    return [header, *rows]


def _factor(codec_bytes: float | None, student_bytes: float) -> str:
    return "not reached" if codec_bytes is None else f"{codec_bytes / student_bytes:.1f} ×"


def rate_accuracy_plots(runs: Sequence[Run], points: Sequence[CodecPoint]) -> dict[str, bytes]:
    """Return the plot of all students, codecs and the teacher, as PNG and SVG files."""
    students = {run.label: [Student(seeds=1, point=run.point, spread=None)] for run in runs}
    codecs = {
        name: [Point(point.bytes_per_image, point.top1) for point in curve] for name, curve in by_codec(points).items()
    }
    figure = plots.rate_accuracy(students, codecs, teacher_of(runs, points)["top1"])
    return {f"rate_accuracy.{kind}": plots.rendered(figure, kind) for kind in ("png", "svg")}


# ---------------------------------------------------------------------------------------------------------------------
# Saliency maps
# ---------------------------------------------------------------------------------------------------------------------


def find_samples(dataset: Path, maps: MapFolder) -> list[Sample]:
    """Return all val images with their maps and masks.

    Raises:
        UserError: there are no images, or some have no map or no mask.
    """
    images = ImageFolder(dataset / "val")
    names = relative_image_names(images.root, (path for path, _ in images.samples))
    maps_of = map_names(names)
    maps.check_complete(maps_of)
    samples = []
    for (path, label), name in zip(images.samples, maps_of, strict=True):
        mask = (dataset / "val_masks" / name).with_suffix(".png")
        if not mask.is_file():
            raise UserError(f"{mask} is missing: make the data set with `python scripts/prepare_dataset.py digits`")
        samples.append(Sample(label, Path(path), name, mask))
    return samples


def scores_of(samples: Sequence[Sample], maps: MapFolder) -> MapScores:
    """Return how well the maps point at the masks, over all samples."""
    pairs = ((maps.read(sample.saliency), read_mask(sample.mask)) for sample in samples)
    return score_maps(progress_bar(pairs, "scoring maps", len(samples)))


def caption(scores: MapScores) -> str:
    """Return what the sheet shows, and the scores of the maps over all val images."""
    return (
        "The first validation images of every class, and the teacher's saliency map over each (viridis: dark blue 0, "
        "yellow 1) with the outline of the digit, which the teacher never saw. "
        f"Over all {scores.images:,} images, the digit gets {scores.mass_ratio:.2f} times the mass that a uniform map "
        f"would give it, and {scores.pointing_game:.1f} % of the maps have their maximum on the digit "
        f"(a random point: {scores.chance:.1f} %)."
    )


# ---------------------------------------------------------------------------------------------------------------------
# Page
# ---------------------------------------------------------------------------------------------------------------------


def conditions(runs: Sequence[Run], maps_command: str, command: str) -> dict[str, str]:
    """Return the conditions of the results, by heading.

    Args:
        runs: the tested students.
        maps_command: the command that made the saliency maps.
        command: the command that makes the report.
    """
    found = {
        "Images": f"{runs[0].student['images']:,} validation images; none was trained on, but the "
        "best epoch was chosen on them",
        "Bytes": "everything that is sent, as a mean over the images: of a student the whole stream, its container and "
        "checksum included; of a codec the whole file, its headers included (JPEG 4:2:0 with optimised Huffman "
        "tables, WebP with method 6, both by Pillow)",
        "Comparison": "a codec's bytes at a student's top-1, interpolated on its curve, relative to the student's; "
        "the teacher classifies the decoded images",
    }
    for run in runs:
        results, student = run.results, run.student
        versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
        found[run.label] = (
            f"{results['command']} · seed {results['seed']} · git {results['git_revision']} · {results['time']} · "
            f"weights {portable(Path(results['weights']))} · encoder of {student['edge_parameters']:,} parameters · "
            f"strings alone {student['strings_kb'] * KILOBYTE:.1f} bytes/image · Python {results['python']}, {versions}"
        )
    return {**found, "Saliency maps": maps_command, "This page": command}


def page(rows: Sequence[Sequence[str]], caption: str, conditions: Mapping[str, str]) -> bytes:
    """Return the HTML page; rate_accuracy.svg and saliency.png are expected beside it.

    Args:
        rows: header and rows of the summary.
        caption: caption of the sheet of maps.
        conditions: text by heading.
    """
    return render("quickstart.html", rows=rows, caption=caption, conditions=conditions)
