"""Renders the results of a sweep beside image codecs: tables, plots and one static page that works offline.

    python scripts/report.py config/tiny_imagenet/results.csv --codecs config/tiny_imagenet/codecs.csv -o DIR

Rates are everything sent per image. A curve is a method's rows; rows that differ in nothing but the seed are averaged.
Bytes at an accuracy and Bjontegaard deltas are read from the curves by monotone interpolation
(`misc/evaluation/curves.py`); a negative delta means fewer bytes than the anchor at equal top-1. Times over a link are
of two students, those that send least among the ones that lose at most half a point, and at most two; where none does,
of the one that loses least. Codecs that never reach its top-1 are left out. Where second halves of a training were run,
what weights their distortion is compared by pairs of runs with one beginning (`misc/reports/paired.py`).
"""

import argparse
from pathlib import Path

from misc.errors import UserError, did_you_mean, exit_on_user_error
from misc.evaluation.codec_table import by_codec, check_same_test, read_points
from misc.evaluation.curves import Point
from misc.files import write_atomically
from misc.reports import page, plots
from misc.reports.link import codec_routes
from misc.reports.paired import comparisons, without_compared
from misc.reports.paired_table import conclusion, paired_table
from misc.reports.sweep import (
    BASELINE,
    LOSSES,
    SMALL_LOSS,
    UNWEIGHTED,
    WEIGHTS,
    accuracy_section,
    all_rows,
    curves_table,
    images_of,
    pictures_section,
    rates_table,
    reading_note,
    route_of,
    spending,
    student_named,
    times_section,
    times_table,
    weights_markdown,
    weights_section,
)
from misc.sweeps.table import read_rows, recommended, students_of, teacher_top1
from misc.tables import markdown, text_table


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("results", type=Path, metavar="CSV", help="from scripts/sweep.py")
    parser.add_argument("--codecs", required=True, type=Path, metavar="CSV", help="from scripts/evaluate_codecs.py")
    anchors = f"methods to compare with, beside the codecs (default: those of {BASELINE} with two points or more)"
    parser.add_argument("--anchors", nargs="+", metavar="METHOD", help=anchors)
    runs = "the sweep's run folders: adds training curves and, with the data set, where and how much a student spends"
    parser.add_argument("--runs", type=Path, metavar="DIR", help=runs)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    rows, points = read_rows(args.results), read_points(args.codecs)
    codecs = by_codec(points)
    curve_rows = without_compared(rows, UNWEIGHTED)  # the halves of a training have a table of their own
    methods = students_of(curve_rows)
    if not methods:
        raise UserError(f"no run in {args.results} was run: python scripts/sweep.py makes them")
    anchors = args.anchors or [name for name in methods if name.startswith(BASELINE) and len(methods[name]) > 1]
    for anchor in anchors:
        if anchor not in methods:
            raise UserError(f"--anchors {anchor} is no method that was run{did_you_mean(anchor, methods)}")
    teacher = teacher_top1(rows)
    check_same_test(points, teacher, images_of(rows))
    curves = {name: [student.point for student in students] for name, students in methods.items()}
    curves |= {name: [Point(point.bytes_per_image, point.top1) for point in points] for name, points in codecs.items()}
    chosen = {loss: recommended(curve_rows, loss) for loss in LOSSES}
    routes = {
        loss: {"student": route_of(row), **codec_routes(codecs, float(row["top1"]))} for loss, row in chosen.items()
    }
    tables = [curves_table(curves, teacher), rates_table(curves, [*anchors, *codecs])]
    note, times = reading_note(teacher, images_of(rows)), {loss: times_table(each) for loss, each in routes.items()}
    weights = comparisons(rows, UNWEIGHTED)
    files = {
        "summary.md": "\n".join([*map(markdown, tables), f"{note}\n", *weights_markdown(weights)]).encode(),
        "rate_accuracy.svg": plots.rendered(plots.rate_accuracy(curves, methods, teacher)),
    }
    for loss in LOSSES:
        files[f"times_{loss:g}.md"] = markdown(times[loss]).encode()
        files[f"times_{loss:g}.svg"] = plots.rendered(plots.times_over_a_link(routes[loss]))
    if weights:
        files["weights.svg"] = plots.rendered(plots.differences(weights))
    if args.runs:
        files["training.svg"] = plots.rendered(plots.training_curves(rows, args.runs))
        files |= spending(args.runs / chosen[SMALL_LOSS]["run"])
    parts = [*accuracy_section(tables, note, teacher, images_of(rows)), *times_section(times, chosen)]
    parts += weights_section(weights)
    parts += pictures_section(chosen[SMALL_LOSS]) if args.runs else []
    parts += ["<h2>Every run</h2>", page.table(all_rows(rows))]
    files["index.html"] = page.page("Rate against accuracy", "\n".join(parts)).encode()
    for name, content in files.items():
        write_atomically(args.output / name, content)
    print(f"teacher {teacher:.2f} %", *map(text_table, tables), sep="\n\n", end="\n\n")
    for loss, row in chosen.items():
        print(f"{student_named(row, loss)}, ms\n{text_table(times[loss])}\n")
    if weights:
        print(f"{WEIGHTS}\n{text_table(paired_table(weights))}\n{conclusion(weights)}\n")
    print("\n".join(str(args.output / name) for name in files))


# ---------------------------------------------------------------------------------------------------------------------
# Page
# ---------------------------------------------------------------------------------------------------------------------


if __name__ == "__main__":
    main()
