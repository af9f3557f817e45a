"""A run is a folder: resolved config, git revision, versions, seed, log, TensorBoard events, weights, results."""

import importlib.metadata
import itertools
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from misc.config.entries import build_model
from misc.config.load import load_config
from misc.errors import UserError
from misc.files import ROOT, is_temporary, write_atomically
from model.split import SplitClassifier, load_into

CONFIG = "config.resolved.yaml"
FACTS = "run.json"
PACKAGES = ("torch", "torchvision", "torchdistill", "timm", "compressai", "numpy")


def default_run_dir(config_path: str | Path) -> Path:
    """Returns resources/runs/ plus the config's path below config/, without its suffix."""
    path = Path(config_path).resolve().with_suffix("")
    configs = ROOT / "config"
    return ROOT / "resources" / "runs" / (path.relative_to(configs) if path.is_relative_to(configs) else path.name)


def start_run(run_dir: Path, resolved_config: str, seed: int) -> None:
    """Opens a run folder for training; an earlier run in it is moved aside, never overwritten."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        names = (run_dir.with_name(f"{run_dir.name}.before-{n}") for n in itertools.count(1))
        earlier = next(name for name in names if not name.exists())
        run_dir.rename(earlier)
        print(f"The earlier run was moved to {earlier}")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / CONFIG, resolved_config.encode())
    write_atomically(run_dir / FACTS, json.dumps(provenance(seed), indent=1).encode())
    log_to(run_dir)


def check_resumable(run_dir: Path, resolved_config: str, seed: int) -> None:
    """Refuses to go on with a run under another config or seed; removes what a killed process left half-written.

    Raises:
        UserError: the first line in which the configs differ, or both seeds.
    """
    earlier = (run_dir / CONFIG).read_text().splitlines()
    for number, (old, new) in enumerate(itertools.zip_longest(earlier, resolved_config.splitlines()), 1):
        if old != new:
            lines = f"line {number} of {run_dir / CONFIG} is {_quoted(old)}, now it would be {_quoted(new)}"
            raise UserError(f"--resume goes on with the same config only: {lines}")
    trained_with = json.loads((run_dir / FACTS).read_text())["seed"]
    if trained_with != seed:
        raise UserError(f"--resume goes on with the same seed only: the run has {trained_with}, now it is {seed}")
    for path in run_dir.iterdir():
        if is_temporary(path.name):
            path.unlink()


def resume_run(run_dir: Path, seed: int) -> None:
    """Opens a run folder for going on; run.json keeps the command of every time."""
    facts = json.loads((run_dir / FACTS).read_text())
    facts["resumed"] = [*facts.get("resumed", []), provenance(seed)]
    write_atomically(run_dir / FACTS, json.dumps(facts, indent=1).encode())
    log_to(run_dir)


def _quoted(line: str | None) -> str:
    return "missing" if line is None else f"'{line.strip()}'"


def log_to(run_dir: Path) -> None:
    """Sends log messages to the run's log.txt, behind those that are there."""
    logging.basicConfig(
        filename=run_dir / "log.txt",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        level=logging.INFO,
        force=True,  # a process that trains twice logs to the second run's folder
    )


def provenance(seed: int) -> dict:
    """Returns what made a run: command, git revision, seed, versions, time."""
    return {
        "command": " ".join(sys.argv),
        "git_revision": git_revision(),
        "seed": seed,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": sys.version.split()[0],
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def git_revision() -> str:
    """Returns the commit, with "+changes" where the tree differs from it, or "unknown" outside of a checkout."""
    command = ("git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


WEIGHTS = "weights.safetensors"


def open_run(run_dir: Path, resolved_config: str, seed: int, checkpoint: dict[str, Any] | None) -> None:
    """Opens the folder of a run that begins or goes on."""
    if checkpoint is None:
        start_run(run_dir, resolved_config, seed)
    else:
        resume_run(run_dir, seed)


def find_weights(entry: dict, run_dir: Path, are_needed: bool) -> Path | None:
    """Returns the weights to start from: the run's own, else the config's src_ckpt, else none (an error if needed)."""
    own, source = run_dir / WEIGHTS, entry.get("src_ckpt")
    if own.is_file():
        return own
    if source is not None and not Path(source).is_file():
        raise UserError(f"no weights at {own}, nor at {source}, the config's src_ckpt; --skip_ckpt trains from scratch")
    if source is None and are_needed:
        raise UserError(f"nothing to test: no weights at {own}; train first")
    return None if source is None else Path(source)


def load_student(folder: Path, device: torch.device) -> tuple[SplitClassifier, dict]:
    """Returns the student of a run folder, with its weights and the coder's tables, and the run's config.

    Raises:
        UserError: a folder without config or weights, a run without a student, or weights that do not fit.
    """
    config = load_config(folder / "config.resolved.yaml", mode="test").data
    name = "student_model" if "student_model" in config["models"] else "model"
    entry = config["models"][name]
    entry.get("kwargs", {}).pop("trained_parts", None)  # they would be overwritten, and their file may be gone
    student = build_model(name, entry, device)
    if not isinstance(student, SplitClassifier):
        raise UserError(f"{folder} did not train a split classifier")
    load_into(student, folder / "weights.safetensors")
    student.update()
    return student.eval(), config
