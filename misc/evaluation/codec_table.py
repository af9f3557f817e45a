"""The table of image codecs: written by scripts/evaluate_codecs.py, read by the reports."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from misc.errors import UserError
from misc.evaluation.curves import Point, bytes_at, frontier
from misc.files import write_atomically

_REMEDY = "make it with `python scripts/evaluate_codecs.py`"
_TEACHERS_MARGIN = 0.2  # points of top-1


class CodecPoint(NamedTuple):
    """A codec at one quality, over a data set: one row of a codec file.

    Attributes:
        codec: its name.
        quality: the encoder's.
        bytes_per_image: mean size: of the files, headers included, or of a learned codec's strings.
        kb_per_image: the same in kB of 1024 bytes.
        bpp: bits per pixel of the classifier's input, as in a student's test.
        top1: of the teacher on the decoded images, percent.
        top5: percent.
        teacher_top1: of the teacher on the images as they are, percent.
        images: how many.
        encode_ms: from the image to the file, median over single images.
        decode_ms: from the file to the classifier's logits, likewise.
    """

    codec: str
    quality: int
    bytes_per_image: float
    kb_per_image: float
    bpp: float
    top1: float
    top5: float
    teacher_top1: float
    images: int
    encode_ms: float
    decode_ms: float


def bytes_for_accuracy(points: Sequence[CodecPoint], top1: float) -> float | None:
    """Returns the fewest bytes per image at which one codec reaches an accuracy; None if it never does.

    Read from the curve by `bytes_at`; below its first point, that point's bytes count, as the codec writes nothing
    smaller.

    Args:
        points: of one codec, in any order.
        top1: the accuracy, percent.
    """
    curve = [Point(point.bytes_per_image, point.top1) for point in points]
    return bytes_at(curve, max(top1, frontier(curve)[0].top1)) if curve else None


def write_points(path: str | Path, points: Sequence[CodecPoint]) -> None:
    """Writes a codec file: CSV, one row per point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CodecPoint._fields)
    writer.writerows([round(value, 6) if isinstance(value, float) else value for value in point] for point in points)
    write_atomically(path, text.getvalue().encode())


def read_points(path: str | Path) -> list[CodecPoint]:
    """Reads a codec file.

    Raises:
        UserError: no such file, or not one that `write_points` wrote.
    """
    types = CodecPoint.__annotations__
    try:
        with open(path, newline="") as file:
            points = [CodecPoint(**{key: types[key](row[key]) for key in types}) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"no codec file at {path}: {_REMEDY}") from None
    except KeyError as error:
        raise UserError(f"{path} is no codec file of this version: it has no column {error}; {_REMEDY}") from None
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no codec file ({error!r}): {_REMEDY}") from error
    if not points:
        raise UserError(f"{path} has no rows: {_REMEDY}")
    return points


def check_same_test(points: Sequence[CodecPoint], teacher_top1: float, images: int) -> None:
    """Checks that codecs were measured in front of the teacher, and on as many images, as the students beside them.

    Args:
        points: of all codecs.
        teacher_top1: of the students' teacher, percent. Another device may see an image or two in another way.
        images: on which the students were tested.

    Raises:
        UserError: another teacher or another number of images.
    """
    for point in points:
        if abs(point.teacher_top1 - teacher_top1) > _TEACHERS_MARGIN or point.images != images:
            raise UserError(
                f"the codecs were measured with a teacher of {point.teacher_top1:.2f} % top-1 on {point.images} "
                f"images, the students with one of {teacher_top1:.2f} % on {images}: measure both with the same, "
                "scripts/evaluate_codecs.py takes a student's --config"
            )


def by_codec(points: Sequence[CodecPoint]) -> dict[str, list[CodecPoint]]:
    """Returns the points of each codec, in the order in which the codecs first appear."""
    curves: dict[str, list[CodecPoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves
