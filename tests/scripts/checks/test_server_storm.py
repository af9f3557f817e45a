import asyncio
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import torch

from misc.config.load import compose_config
from misc.deploy.load import load_edge, load_server
from misc.errors import UserError
from model.coding.bitstream import BitstreamError, unpack
from scripts.checks import server_storm
from scripts.checks.server_storm import (
    EITHER,
    Answer,
    Child,
    Request,
    Storm,
    damaged,
    first_class,
    main,
    outcome_of,
    told,
)

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
        (None, Answer(503, b"", 0.1), "wrongly 503"),
        (EITHER, Answer(503, b"", 0.1), "sent away"),
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


def test_a_server_that_is_interrupted_while_it_starts_is_ended(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, command, **kwargs):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **kwargs)
            self.stdout.close()
            self.stdout = self
            started.append(self)

        def readline(self):
            raise KeyboardInterrupt

        def close(self):
            pass

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Child([], subprocess.DEVNULL)
    assert started[0].returncode == -signal.SIGKILL


def storm(answer):
    """Return a storm over a stub of a child, whose connections give an answer or raise an error."""

    class Connection:
        async def post(self, stream):
            if isinstance(answer, Exception):
                raise answer
            await asyncio.sleep(0)
            return answer

    @asynccontextmanager
    async def connected(port):
        yield Connection()

    process = SimpleNamespace(kill=lambda: None, wait=lambda: None)
    child = SimpleNamespace(port=0, process=process, restart=lambda: None)
    args = SimpleNamespace(seed=0, requests=100)
    found = Storm(args, child, [])
    found.good = [Request(b"", 3)]
    return found, connected


@pytest.mark.parametrize(
    ("answer", "failures", "outcome"),
    [(GOOD, 0, "100 classified"), (Answer(500, b"", 0.1), 100, "100 wrongly 500"), (OSError(), 100, "100 lost")],
)
def test_the_check_with_a_kill_ends_whatever_the_server_answers(monkeypatch, answer, failures, outcome):
    found, connected = storm(answer)
    monkeypatch.setattr(server_storm, "connected", connected)
    monkeypatch.setattr(server_storm, "PATIENCE_S", 0.1 if isinstance(answer, OSError) else 60)
    total, failed, told_outcome = asyncio.run(asyncio.wait_for(found.kill(), 30))
    assert (total, failed) == ("100", failures) and outcome in told_outcome


def test_a_damaged_stream_has_a_right_checksum_and_is_not_decoded():
    config = compose_config(CONFIG, mode="test")
    (stream,) = load_edge(config, WEIGHTS).encode(torch.zeros(1, 3, 64, 64))
    half = load_server(config, WEIGHTS)
    half.latents([stream])
    assert unpack(damaged(stream)).payload == unpack(stream).payload + b"\1"
    with pytest.raises(BitstreamError):
        half.latents([damaged(stream)])


@pytest.mark.slow
def test_the_storm_finds_no_failures_with_the_shipped_student(capsys):
    main(["--config", CONFIG, "--weights", WEIGHTS, "--mutations", "50", "--requests", "150", "--connections", "8"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert list(rows) == ["mutations", "soak", "mixture", "rudeness", "kill", "terminate", "tracebacks"]
    assert [row[2] for name, row in rows.items() if name != "tracebacks"] == ["0"] * 6
    assert rows["soak"][1] == "150" and rows["terminate"][1] == "200"
