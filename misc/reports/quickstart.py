"""A report on trained students beside image codecs: the rows of its table, and its page."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from misc.evaluation.accuracy import KILOBYTE
from misc.evaluation.codec_table import CodecPoint, by_codec, bytes_for_accuracy, check_same_test
from misc.files import ROOT
from misc.reports.page import figure, table, terms
from misc.reports.page import page as static_page
from saliency_maps.analysis.objects import read_mask
from saliency_maps.analysis.scores import MapScores
from saliency_maps.map_folder import MapFolder, map_names, relative_image_names


class Run(NamedTuple):
    """A tested student.

    Attributes:
        label: the run folder's path below the folder that all runs share.
        path: its test.json.
        results: the content, as `test()` of main_classification_torchdistill.py writes it.
    """

    label: str
    path: Path
    results: dict

    @property
    def student(self) -> dict:
        return self.results["student"]

    @property
    def bytes_per_image(self) -> float:
        """Mean size of everything sent: as a codec's file counts whole, so does a student's stream."""
        return self.student["sent_kb"] * KILOBYTE


class Row(NamedTuple):
    """One row of results.csv; kb is everything sent per image, predictive_loss the teacher's top-1 less the row's."""

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
    """Reads the test results of run folders, best student first.

    Raises:
        UserError: a folder without test results, or results without a student or a teacher.
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
    """Returns the test results of the teacher that all runs share.

    Raises:
        UserError: results that cannot stand in one table: of several teachers or of several sets of images.
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


def results_rows(runs: Sequence[Run], points: Sequence[CodecPoint], codecs_path: Path) -> list[Row]:
    """Returns the rows of results.csv: the teacher, the students, the codecs."""
    teacher = teacher_of(runs, points)
    top1, top5 = teacher["top1"], teacher["top5"]
    return [
        Row("teacher", "", top1, top5, None, None, 0.0, None, shown(runs[0].path)),
        *(_student_row(run, top1) for run in runs),
        *(_codec_row(point, top1, codecs_path) for point in points),
    ]


def _student_row(run: Run, teacher_top1: float) -> Row:
    student = run.student
    return Row(
        method="student",
        setting=run.label,
        top1=student["top1"],
        top5=student["top5"],
        kb=student["sent_kb"],
        bpp=student["bpp_bytes"] * student["sent_kb"] / student["strings_kb"],  # bpp_bytes is of the strings alone
        predictive_loss=teacher_top1 - student["top1"],
        encoder_parameters=student["edge_parameters"],
        source=shown(run.path),
    )


def _codec_row(point: CodecPoint, teacher_top1: float, path: Path) -> Row:
    return Row(
        method=point.codec,
        setting=f"quality {point.quality}",
        top1=point.top1,
        top5=point.top5,
        kb=point.kb_per_image,
        bpp=point.bpp,
        predictive_loss=teacher_top1 - point.top1,
        encoder_parameters=None,
        source=shown(path),
    )


def results_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV; what a method does not have is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows([round(value, 6) if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue()


def shown(path: Path) -> str:
    """Returns a path as a reader elsewhere can use it: relative to the repository where it lies in it."""
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def summary_table(runs: Sequence[Run], points: Sequence[CodecPoint]) -> list[list[str]]:
    """Returns the header and a row each for the teacher and the students, as text.

    The last columns say how many times the student's bytes a codec needs for the student's accuracy.
    """
    curves = by_codec(points)
    teacher = teacher_of(runs, points)
    header = ["", "top-1", "loss", "bytes/image", *(f"{name} needs" for name in curves)]
    rows = [["teacher", f"{teacher['top1']:.2f} %", "", "", *("" for _ in curves)]]
    for run in runs:
        top1 = run.student["top1"]
        factors = (_factor(bytes_for_accuracy(curve, top1), run.bytes_per_image) for curve in curves.values())
        rows.append(
            [run.label, f"{top1:.2f} %", f"{teacher['top1'] - top1:.2f}", f"{run.bytes_per_image:.1f}", *factors]
        )
    return [header, *rows]


def _factor(codec_bytes: float | None, student_bytes: float) -> str:
    return "not reached" if codec_bytes is None else f"{codec_bytes / student_bytes:.1f} ×"


def conditions(runs: Sequence[Run], maps_command: str, command: str) -> dict[str, str]:
    """Returns what the results depend on, by heading; `maps_command` made the maps, `command` makes the report."""
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
            f"weights {shown(Path(results['weights']))} · encoder of {student['edge_parameters']:,} parameters · "
            f"strings alone {student['strings_kb'] * KILOBYTE:.1f} bytes/image · Python {results['python']}, {versions}"
        )
    return {**found, "Saliency maps": maps_command, "This page": command}


def page(rows: Sequence[Sequence[str]], plot: str, sheet: str, caption: str, conditions: Mapping[str, str]) -> str:
    """Returns the HTML page.

    Args:
        rows: header and rows of the table.
        plot: file name of the rate-accuracy plot, beside the page.
        sheet: file name of the sheet of maps, beside the page.
        caption: what the sheet shows.
        conditions: text by heading.
    """
    curves = figure(
        plot,
        "Top-1 accuracy against bytes per image: JPEG, WebP, the students and the teacher",
        "Top-1 on the validation images against everything sent per image, on a logarithmic axis.",
    )
    maps = figure(sheet, "Pairs of validation images and their saliency maps", caption)
    return static_page(
        "FrankenSplit quickstart",
        f"""\
<p>A small encoder on the device sends a compressed feature instead of an image, and the frozen rest of a classifier,
the teacher, decides on the server. This page compares what such students send, and how often they are right, with JPEG
and WebP in front of the same teacher.</p>
{table(rows)}
<p class="note">Loss in points of top-1 against the teacher. The last columns: how many times the student's bytes a
codec needs for the student's accuracy.</p>
<h2>Accuracy against size</h2>
{curves}
<h2>Where the teacher looks</h2>
{maps}
<h2>Conditions</h2>
{terms(conditions)}""",
    )


class Sample(NamedTuple):
    """Where a val image and its mask lie, and the name of its saliency map."""

    label: int
    image: Path
    saliency: str
    mask: Path


def find_samples(dataset: Path, maps: MapFolder) -> list[Sample]:
    """Returns all val images with their maps and masks.

    Raises:
        UserError: no images, or images without a map (how many, the first ones) or a mask (the first one).
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


def maps_and_masks(samples: Sequence[Sample], maps: MapFolder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((maps.read(sample.saliency), read_mask(sample.mask)) for sample in samples)


def caption(scores: MapScores) -> str:
    """Returns what the sheet shows and how its maps score over all val images."""
    return (
        "The first validation images of every class, and the teacher's saliency map over each (viridis: dark blue 0, "
        "yellow 1) with the outline of the digit, which the teacher never saw. "
        f"Over all {scores.images:,} images, the digit gets {scores.mass_ratio:.2f} times the mass that a uniform map "
        f"would give it, and {scores.pointing_game:.1f} % of the maps have their maximum on the digit "
        f"(a random point: {scores.chance:.1f} %)."
    )
