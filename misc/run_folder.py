"""A run is a folder: resolved config, git revision, versions, seed, log, TensorBoard events, weights, results."""

import importlib.metadata
import itertools
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from misc.atomic import is_temporary, write_atomically
from misc.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
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
