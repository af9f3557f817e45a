"""Run folders: resolved config, provenance (command, revision, versions, seed), log, events, weights, results."""

import importlib.metadata
import itertools
import json
import logging
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from misc.config import load_config
from misc.config.entries import build_model, trained_name, without_trained_parts
from misc.errors import UserError
from misc.files import ROOT, is_temporary, locked, write_atomically
from model.split import SplitClassifier, load_into

CONFIG = "config.resolved.yaml"
FACTS = "run.json"
WEIGHTS = "weights.safetensors"
PACKAGES = ("torch", "torchvision", "torchdistill", "timm", "compressai", "numpy")


def default_run_dir(config_path: str | Path) -> Path:
    """Return resources/runs/ plus the config's path below config/, without its suffix."""
    path = Path(config_path).resolve().with_suffix("")
    configs = ROOT / "config"
    return ROOT / "resources" / "runs" / (path.relative_to(configs) if path.is_relative_to(configs) else path.name)


def lock_run(run_dir: Path) -> AbstractContextManager[None]:
    """Keep other trainings out of a run folder; the lock lies beside the folder, which may be moved aside."""
    busy = f"another process trains in {run_dir}: wait for it or choose another --run_dir"
    return locked(run_dir.absolute().with_name(f".{run_dir.name}.lock"), busy)


def start_run(run_dir: Path, resolved_config: str, seed: int) -> None:
    """Open a run folder for a new training; an earlier run in it is moved aside, never overwritten."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        names = (run_dir.with_name(f"{run_dir.name}.before-{n}") for n in itertools.count(1))
        earlier = next(name for name in names if not name.exists())
        run_dir.rename(earlier)
        print(f"The earlier run was moved to {earlier}")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / CONFIG, resolved_config.encode())
    write_atomically(run_dir / FACTS, json.dumps(provenance(seed), indent=1).encode())
    log_to(run_dir)


def resume_run(run_dir: Path, seed: int) -> None:
    """Open a run folder to resume its training; run.json records the command of every start."""
    facts = json.loads((run_dir / FACTS).read_text())
    facts["resumed"] = [*facts.get("resumed", []), provenance(seed)]
    write_atomically(run_dir / FACTS, json.dumps(facts, indent=1).encode())
    log_to(run_dir)


def check_resumable(run_dir: Path, resolved_config: str, seed: int) -> None:
    """Refuse to resume a run with another config or seed; remove files that a killed process left half-written.

    Raises:
        UserError: the first line in which the configs differ, or both seeds.
    """
    earlier = (run_dir / CONFIG).read_text().splitlines()
    for number, (old, new) in enumerate(itertools.zip_longest(earlier, resolved_config.splitlines()), 1):
        if old != new:
            lines = f"line {number} of {run_dir / CONFIG} is {_quoted(old)}, now it would be {_quoted(new)}"
            raise UserError(f"--resume needs the same config: {lines}")
    trained_with = json.loads((run_dir / FACTS).read_text())["seed"]
    if trained_with != seed:
        raise UserError(f"--resume needs the same seed: the run has {trained_with}, now it is {seed}")
    for path in run_dir.iterdir():
        if is_temporary(path.name):
            path.unlink()


def _quoted(line: str | None) -> str:
    return "missing" if line is None else f"'{line.strip()}'"


def log_to(run_dir: Path) -> None:
    """Append log messages to the run's log.txt."""
    logging.basicConfig(
        filename=run_dir / "log.txt",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        level=logging.INFO,
        force=True,  # a second run in the same process logs to its own folder
    )


def provenance(seed: int) -> dict:
    """Return how a run was made: command, git revision, seed, versions, time."""
    return {
        "command": " ".join(sys.argv),
        "git_revision": git_revision(),
        "seed": seed,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": sys.version.split()[0],
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def git_revision(root: Path = ROOT) -> str:
    """Return the commit, with "+changes" if a tracked file differs from it, or "unknown" outside of a checkout.

    Tables (CSV) do not count: a sweep writes its rows between runs.
    """
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":(exclude)*.csv")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    command = ("git", "-C", str(root), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def find_weights(entry: dict, run_dir: Path, are_needed: bool) -> Path | None:
    """Return the weights to start from: the run's own, or else the config's src_ckpt.

    Args:
        entry: the trained model's in the config.
        run_dir: the run's folder.
        are_needed: whether having neither is an error; else None is returned.

    Raises:
        UserError: src_ckpt is not a file, or weights are needed and there are none.
    """
    own, source = run_dir / WEIGHTS, entry.get("src_ckpt")
    if own.is_file():
        return own
    if source is not None and not Path(source).is_file():
        raise UserError(f"no weights at {own}, nor at {source}, the config's src_ckpt; --skip_ckpt trains from scratch")
    if source is None and are_needed:
        raise UserError(f"nothing to test: no weights at {own}; train first")
    return None if source is None else Path(source)


def load_student(folder: Path, device: torch.device) -> tuple[SplitClassifier, dict]:
    """Build the student of a run folder, with its weights and the coder's tables.

    Returns:
        The student in evaluation mode, and the run's config.

    Raises:
        UserError: a folder without config or weights, a run without a student, or weights that do not fit.
    """
    config = load_config(folder / CONFIG, mode="test").data
    name = trained_name(config["models"])
    student = build_model(name, without_trained_parts(config["models"][name]), device)
    if not isinstance(student, SplitClassifier):
        raise UserError(f"{folder} did not train a split classifier")
    load_into(student, folder / WEIGHTS)
    student.update()
    return student.eval(), config
