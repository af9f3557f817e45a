"""The order in which runs and maps are made, and which students are timed."""

import json
import os
from pathlib import Path

import pytest

from misc.sweeps import execute
from misc.sweeps.maps import Maps
from misc.sweeps.plan import Run


@pytest.fixture
def run_of(tmp_path):
    """Return a run of a name."""
    return lambda name: Run(name, "method", Path("a.yaml"), (), 0, tmp_path / name)


def test_maps_are_made_once_before_the_group_that_needs_them_and_a_failure_stops_their_runs_alone(
    run_of, tmp_path, monkeypatch, capsys
):
    done = []

    def make_maps(maps: Maps, device: str | None) -> bool:
        done.append(maps.folder.name)
        return maps.folder.name != "broken"

    def make_run(run: Run, device: str | None) -> bool:
        done.append(run.name)
        return run.name != "failing"

    monkeypatch.setattr(Maps, "make", make_maps)
    monkeypatch.setattr(Run, "is_done", lambda run: run.name == "finished")
    monkeypatch.setattr(execute, "make_run", make_run)
    good, broken = Maps(tmp_path / "good", ()), Maps(tmp_path / "broken", ())
    maps_of = {"plain": None, "failing": None, "guided": good, "finished": broken, "unmade": broken, "more": good}
    needs = {run_of(name): maps for name, maps in maps_of.items()}
    groups = [[run for run in needs if run.name in group] for group in ({"plain", "failing"}, {"guided"})]
    groups += [[run for run in needs if run.name in {"finished", "unmade", "more"}]]
    recorded = []
    failed = execute.make_runs(groups, needs, None, 1, lambda: recorded.append(len(done)))
    assert done == ["plain", "failing", "good", "guided", "broken", "more"]
    assert failed == ["failing", "unmade (its maps)"]
    assert len(recorded) == 5  # after each run that could begin, finished ones included
    output = "".join(capsys.readouterr())
    assert f"unmade: not started, as its maps failed: {tmp_path / 'broken'}" in output
    assert f"failing: failed, see {tmp_path / 'failing.log'}" in output


def test_students_are_timed_all_together_and_not_again(run_of, monkeypatch):
    runs = list(map(run_of, ("one", "two", "teacher")))
    for run in runs:
        run.folder.mkdir()
        (run.folder / "test.json").write_text('{"model": {}}' if run.name == "teacher" else '{"student": {}}')
        (run.folder / "weights.safetensors").touch()
        os.utime(run.folder / "weights.safetensors", (1, 1))
    timed = []
    monkeypatch.setattr(execute, "latency_of", lambda run, device: timed.append(run.name) or {"encode_ms": len(timed)})
    execute.time_students(runs, "cpu")
    assert timed == ["one", "two"] * 5 and not (runs[2].folder / "latency.json").exists()
    assert [json.loads((run.folder / "latency.json").read_text()) for run in runs[:2]] == [
        {"encode_ms": 5},
        {"encode_ms": 6},
    ]
    execute.time_students(runs, "cpu")
    assert len(timed) == 10
    os.utime(runs[0].folder / "latency.json", (0, 0))  # the weights are newer
    execute.time_students(runs, "cpu")
    assert len(timed) == 20
