"""What the plots draw, read from their artists."""

import pytest

from misc.errors import UserError
from misc.evaluation.curves import Point
from misc.reports import plots
from misc.sweeps.table import Student, SweepRow

STUDENTS = {
    "ours": [Student(1, Point(50, 60), None), Student(2, Point(100, 64), 0.5)],
    "alone": [Student(1, Point(70, 61), None)],
}
CODECS = {"JPEG": [Point(800, 66), Point(400, 20)]}


def test_students_codecs_and_the_teacher_are_in_the_legend_and_codecs_are_dotted():
    figure = plots.rate_accuracy(STUDENTS, CODECS, teacher=65)
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "alone", "JPEG", "teacher, whole image"]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["ours"].get_linestyle() == "-" and lines["JPEG"].get_linestyle() == ":"
    assert list(lines["JPEG"].get_xdata()) == [400, 800]  # sorted
    assert axes.get_ylim() == (35, 67) and axes.get_xscale() == "log"
    looks = {(line.get_color(), line.get_marker()) for name, line in lines.items() if name in {*STUDENTS, *CODECS}}
    assert len(looks) == 3


def test_equal_figures_give_equal_files_in_both_formats():
    first, second = (plots.rate_accuracy(STUDENTS, CODECS, teacher=65) for _ in range(2))
    assert plots.rendered(first) == plots.rendered(second) and plots.rendered(first).startswith(b"<?xml")
    assert plots.rendered(first, "png") == plots.rendered(second, "png") and b"PNG" in plots.rendered(first, "png")[:8]


def test_a_folder_without_histories_is_refused(tmp_path):
    row = SweepRow("one", "ours", "a.yaml", "", None, 0.1, 0)
    with pytest.raises(UserError, match="holds none of the table's runs"):
        plots.training_curves([row], tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "history.jsonl").write_text('{"val_top1": 50, "loss": 3}\n{"val_top1": 60, "loss": 2}\n')
    accuracy, loss = plots.training_curves([row], tmp_path).axes
    assert list(accuracy.lines[0].get_ydata()) == [50, 60] and list(loss.lines[0].get_ydata()) == [3, 2]
