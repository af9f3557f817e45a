from collections import Counter

import pytest

from misc.errors import UserError
from scripts.checks.server_storm import EITHER, Answer, Child, Request, first_class, main, outcome_of, told

CONFIG = "config/quickstart/sg_resnet.yaml"
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"
GOOD = Answer(200, b'{"classes": [{"index": 3}, {"index": 1}]}', 0.1)
BAD = Answer(400, b'{"detail": "cut"}', 0.1)


@pytest.mark.parametrize(
    ("expected", "answer", "outcome"),
    [
        (3, GOOD, "classified"),
        (1, GOOD, "wrongly 200"),
        (None, GOOD, "wrongly 200"),
        (EITHER, GOOD, "classified"),
        (3, BAD, "wrongly 400"),
        (None, BAD, "refused"),
        (EITHER, BAD, "refused"),
        (EITHER, Answer(500, b"", 0.1), "wrongly 500"),
        (3, Answer(503, b"", 0.1), "wrongly 503"),
    ],
)
def test_outcomes(expected, answer, outcome):
    assert outcome_of(Request(b"", expected), answer) == outcome


def test_a_good_stream_that_is_refused_ends_the_run():
    assert first_class(GOOD) == 3
    with pytest.raises(UserError, match="answered with 400"):
        first_class(BAD)


def test_outcomes_are_told():
    assert told(Counter({"refused": 2, "classified": 1000})) == "1,000 classified, 2 refused"


def test_a_server_that_does_not_start_is_noticed(tmp_path):
    with open(tmp_path / "log", "wb") as log, pytest.raises(UserError, match="exit code 2"):
        Child(["--config", "none.yaml"], log)


@pytest.mark.slow
def test_the_storm_finds_no_failures_with_the_shipped_student(capsys):
    main(["--config", CONFIG, "--weights", WEIGHTS, "--mutations", "50", "--requests", "150", "--connections", "8"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert list(rows) == ["mutations", "soak", "mixture", "rudeness", "kill", "terminate", "tracebacks"]
    assert [row[2] for name, row in rows.items() if name != "tracebacks"] == ["0"] * 6
    assert rows["soak"][1] == "150" and rows["terminate"][1] == "200"
