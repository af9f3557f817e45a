"""Running and timing the runs of a sweep."""

import functools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from misc.devices import default_device, usable_device
from misc.evaluation.evaluate import evaluation_loader
from misc.evaluation.timing import latencies_in_turn, latency
from misc.files import write_atomically
from misc.sweeps.plan import Run
from misc.training.run_folder import load_student


def make(run: Run, device: str | None) -> bool:
    """Trains and tests; what a run prints goes to its log. Returns whether it succeeded."""
    log_of(run).parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(run), "w") as log:
        return subprocess.run(run.command(device), stdout=log, stderr=subprocess.STDOUT).returncode == 0


def time_students(runs: Sequence[Run], device: str | None) -> None:
    """Writes latency.json of those runs that have students: of all anew, as soon as one has none that is up to date."""
    students = [run for run in runs if "student" in json.loads((run.folder / "test.json").read_text())]
    if all(map(is_timed, students)):
        return
    place = usable_device(device or default_device())
    found = latencies_in_turn([functools.partial(latency_of, run, place) for run in students], unit="students")
    for run, milliseconds in zip(students, found, strict=True):
        write_atomically(run.folder / "latency.json", json.dumps(milliseconds).encode())


def is_timed(run: Run) -> bool:
    path, weights = run.folder / "latency.json", run.folder / "weights.safetensors"
    return path.is_file() and path.stat().st_mtime > weights.stat().st_mtime


def latency_of(run: Run, device: torch.device) -> dict[str, float]:
    student, config = load_student(run.folder, device)
    return latency(student, evaluation_loader(config), device)


def log_of(run: Run) -> Path:
    return run.folder.parent / f"{run.folder.name}.log"
