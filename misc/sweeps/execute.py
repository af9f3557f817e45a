"""Making and timing the runs of a sweep."""

import functools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from misc.devices import default_device, usable_device
from misc.evaluation.evaluate import evaluation_loader
from misc.evaluation.timing import latencies_in_turn, latency
from misc.files import write_atomically
from misc.progress import progress_bar
from misc.sweeps.maps import Maps
from misc.sweeps.plan import Run
from misc.training.run_folder import WEIGHTS, load_student


def make_runs(
    groups: Sequence[Sequence[Run]],
    needs: Mapping[Run, Maps | None],
    device: str | None,
    jobs: int,
    after_each: Callable[[], None],
    make: Callable[[Run, str | None], bool] | None = None,
) -> list[str]:
    """Make the runs that are not done, and the maps they need.

    Args:
        groups: a group begins when those before it have ended.
        needs: the maps of each run, made before the group of the first run that needs them.
        device: of every run; None leaves it to the run.
        jobs: runs at a time.
        after_each: called after each run.
        make: makes one run and says whether it succeeded; by default `make_run`.

    Returns:
        The names of the runs that failed, or whose maps did; both are also printed.
    """
    failed, make = [], make or make_run
    make_maps = functools.cache(lambda maps: maps.make(device))
    total = sum(map(len, groups))
    with ThreadPoolExecutor(jobs) as pool, progress_bar(None, "sweep", total, unit="runs") as bar:
        for group in groups:
            lacking = [run for run in group if needs[run] and not run.is_done() and not make_maps(needs[run])]
            for run in lacking:
                failed.append(f"{run.name} (its maps)")
                bar.write(f"{run.name}: not started, as its maps failed: {needs[run].folder}")
                bar.update()
            ready = [run for run in group if run not in lacking]
            for run, succeeded in pool.map(lambda run: (run, run.is_done() or make(run, device)), ready):
                if not succeeded:
                    failed.append(run.name)
                    bar.write(f"{run.name}: failed, see {log_of(run)}")
                bar.update()
                after_each()
    return failed


def make_run(run: Run, device: str | None) -> bool:
    """Train and test in a process of its own whose output goes to the run's log; return whether it succeeded."""
    log_of(run).parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(run), "w") as log:
        return subprocess.run(run.command(device), stdout=log, stderr=subprocess.STDOUT).returncode == 0


def log_of(run: Run) -> Path:
    """Return the path of a run's log, beside the run folder."""
    return run.folder.parent / f"{run.folder.name}.log"


def time_students(runs: Sequence[Run], device: str | None) -> None:
    """Write latency.json of all students among the runs, in turn, unless all of them are up to date."""
    students = [run for run in runs if "student" in json.loads((run.folder / "test.json").read_text())]
    if all(map(is_timed, students)):
        return
    place = usable_device(device or default_device())
    found = latencies_in_turn([functools.partial(latency_of, run, place) for run in students], unit="students")
    for run, milliseconds in zip(students, found, strict=True):
        write_atomically(run.folder / "latency.json", json.dumps(milliseconds).encode())


def is_timed(run: Run) -> bool:
    """Whether latency.json is newer than the weights."""
    path, weights = run.folder / "latency.json", run.folder / WEIGHTS
    return path.is_file() and path.stat().st_mtime > weights.stat().st_mtime


def latency_of(run: Run, device: torch.device) -> dict[str, float]:
    """Return encode_ms and decode_ms of a run's student."""
    student, config = load_student(run.folder, device)
    return latency(student, evaluation_loader(config), device)
