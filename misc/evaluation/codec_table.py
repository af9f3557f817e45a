"""Table of image codecs, written by scripts/evaluate_codecs.py and read by the reports."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from misc.errors import UserError
from misc.evaluation.curves import Point, bytes_at, frontier
from misc.files import write_atomically

_REMEDY = "make it with `python scripts/evaluate_codecs.py`"
_TEACHER_MARGIN = 0.2  # points of top-1: two devices may classify an image or two differently


class CodecPoint(NamedTuple):
    """One row of a codec file: a codec at one quality, over a data set.

    Attributes:
        codec: name of the codec.
        quality: quality setting of its encoder.
        bytes_per_image: mean size of the files, headers included; of a learned codec, of its strings.
        kb_per_image: the same in kB of 1024 bytes.
        bpp: bits per pixel of the classifier's input, as in a student's test.
        top1: top-1 of the teacher on the decoded images, percent.
        top5: top-5 of the teacher on the decoded images, percent.
        teacher_top1: top-1 of the teacher on the original images, percent.
        images: number of images.
        encode_ms: time from the image to the file, median over single images.
        decode_ms: time from the file to the classifier's logits, median over single images.
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
    """Return the fewest bytes per image at which one codec reaches an accuracy; None if it never does.

    Interpolate by `bytes_at`; below the first point of the curve, return that point's bytes, as the codec has no
    lower setting.

    Args:
        points: all of one codec, in any order.
        top1: accuracy in percent.
    """
    curve = [Point(point.bytes_per_image, point.top1) for point in points]
    return bytes_at(curve, max(top1, frontier(curve)[0].top1)) if curve else None


def write_points(path: str | Path, points: Sequence[CodecPoint]) -> None:
    """Write a codec file: CSV with one row per point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CodecPoint._fields)
    writer.writerows([round(value, 6) if isinstance(value, float) else value for value in point] for point in points)
    write_atomically(path, text.getvalue().encode())


def read_points(path: str | Path) -> list[CodecPoint]:
    """Read a codec file.

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
    """Check that the codecs were evaluated with the students' teacher and on as many images.

    Args:
        points: all codecs.
        teacher_top1: top-1 of the students' teacher, percent.
        images: number of images the students were tested on.

    Raises:
        UserError: the teachers or the numbers of images differ.
    """
    for point in points:
        if abs(point.teacher_top1 - teacher_top1) > _TEACHER_MARGIN or point.images != images:
            raise UserError(
                f"the codecs were evaluated with a teacher of {point.teacher_top1:.2f} % top-1 on {point.images} "
                f"images, the students with one of {teacher_top1:.2f} % on {images}: evaluate both with the same "
                "(scripts/evaluate_codecs.py takes a student's --config)"
            )


def by_codec(points: Sequence[CodecPoint]) -> dict[str, list[CodecPoint]]:
    """Return the points of each codec; codecs keep the order of their first point."""
    curves: dict[str, list[CodecPoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves


def summary(points: Sequence[CodecPoint]) -> str:
    """Return one line per codec: the ends of its curve."""
    curves = by_codec(points)
    width = max(map(len, curves))
    lines = []
    for name, curve in curves.items():
        first, last = curve[0], curve[-1]
        lines.append(
            f"  {name:<{width}}  {first.bytes_per_image:6,.0f} to {last.bytes_per_image:6,.0f} bytes/image, "
            f"top-1 {first.top1:5.2f} to {last.top1:5.2f} %  (quality {first.quality} to {last.quality})"
        )
    return "\n".join(lines)
