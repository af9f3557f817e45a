"""Runs every experiment of a sweep, each in a process of its own, and writes one table row for each.

A sweep file lists groups; a group is the product of its configs, the values under `set` and its seeds:

    output: resources/sweeps/priors         # run folders and logs, relative to the repository root
    results: results/priors.csv             # one row per run, relative to the repository root
    groups:
      - configs: [phd_resnet.yaml]          # relative to the sweep file
        set:
          train.stage1.num_epochs: 3        # one value, or a list of which each makes a run and names it
          lmbda: [0.03, 0.06]
        seeds: [0]                          # default

A sweep given again goes on: a run is made anew only where its config, its seed or another run's weights that it begins
with have changed since, or where its test is missing. Runs begin from scratch (or from what their config's
`trained_parts` name); a group begins when those before it have ended. A run that fails is reported at the end, after
the others, and makes the exit code 1. Training is timed with `--jobs` runs on the machine, encoding and decoding at the
end, one student at a time.
"""

import argparse
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from main_classification_torchdistill import build_model
from misc.atomic import write_atomically
from misc.config import compose_config, load_config, read_plain
from misc.cores import share_cores
from misc.device import default_device, usable_device
from misc.errors import UserError, did_you_mean, exit_on_user_error
from misc.evaluation import KILOBYTE, latency, test_loader
from misc.progress import progress_bar
from misc.run_folder import ROOT
from misc.weights import load_into

GROUP_KEYS = ("configs", "set", "seeds")
WEIGHTS_OF_A_RUN = re.compile(r"sweeps/[^\s'/]+/([^\s'/]+/weights\.safetensors)")


@dataclass(frozen=True)
class Run:
    """One experiment of a sweep: its config, overrides and seed, and the folder it is made in."""

    name: str
    config: Path
    overrides: tuple[str, ...]
    seed: int
    folder: Path

    def command(self, device: str | None) -> list[str]:
        """Returns what trains and tests it, from scratch."""
        command = [sys.executable, str(ROOT / "main_classification_torchdistill.py"), "--config", str(self.config)]
        for override in self.overrides:
            command += ["--set", override]
        command += ["--seed", str(self.seed), "--run_dir", str(self.folder), "--skip_ckpt"]
        return command + (["--device", device] if device else [])

    def is_done(self) -> bool:
        """Whether the run folder holds the test of this very config and seed, made after the weights it begins with."""
        test, resolved = self.folder / "test.json", self.folder / "config.resolved.yaml"
        if not test.is_file() or not resolved.is_file():
            return False
        wanted = compose_config(self.config, self.overrides).resolved
        if resolved.read_text() != wanted or json.loads(test.read_text())["seed"] != self.seed:
            return False
        sources = (self.folder.parent / name for name in WEIGHTS_OF_A_RUN.findall(wanted))
        return all(source.is_file() and source.stat().st_mtime < test.stat().st_mtime for source in sources)


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("sweep", type=Path, metavar="FILE", help="the sweep file")
    parser.add_argument("--device", help="of every run; default: a run's own")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    sweep, groups = read_sweep(args.sweep)
    runs = [run for group in groups for run in group]
    for run in runs:
        compose_config(run.config, run.overrides)  # a mistake in the last run shows before the first
    failed = []
    with ThreadPoolExecutor(args.jobs) as pool, progress_bar(None, "sweep", len(runs), unit="runs") as bar:
        for group in groups:
            for run, succeeded in pool.map(lambda run: (run, run.is_done() or make(run, args.device)), group):
                if not succeeded:
                    failed.append(run)
                    bar.write(f"{run.name}: failed, see {log_of(run)}")
                bar.update()
                write_rows(ROOT / sweep["results"], [row_of(run) for run in runs if run.is_done()])
    done = [run for run in runs if run not in failed]
    for run in progress_bar(done, "timing", len(done), unit="students"):
        time_student(run, args.device)
    write_rows(ROOT / sweep["results"], [row_of(run) for run in done])
    print(f"{table([row_of(run) for run in done])}\n\nResults: {ROOT / sweep['results']}")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(run.name for run in failed)}", file=sys.stderr)
        sys.exit(1)


def read_sweep(path: Path) -> tuple[dict, list[list[Run]]]:
    """Returns the sweep file and the runs of each group.

    Raises:
        UserError: a file that is missing, malformed, or names unknown keys.
    """
    sweep = read_plain(path)
    if set(sweep) != {"output", "results", "groups"}:
        raise UserError(f"{path}: a sweep holds 'output', 'results' and 'groups' (and nothing else)")
    groups = [list(runs_of(group, path, ROOT / sweep["output"])) for group in sweep["groups"]]
    names = [run.name for group in groups for run in group]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f"{path}: two runs are called {doubled}")
    return sweep, groups


def runs_of(group: dict, path: Path, output: Path) -> Iterator[Run]:
    """Yields the runs of one group; a run's name tells the config and its value of every list in the group."""
    if "configs" not in group:
        raise UserError(f"{path}: a group has no 'configs'")
    for key in group:
        if key not in GROUP_KEYS:
            raise UserError(f"{path}: unknown key '{key}' in a group{did_you_mean(key, GROUP_KEYS)}")
    lists = {key for key, value in group.get("set", {}).items() if isinstance(value, list)}
    settings = {key: value if key in lists else [value] for key, value in group.get("set", {}).items()}
    seeds = group.get("seeds", [0])
    for config, values, seed in itertools.product(group["configs"], itertools.product(*settings.values()), seeds):
        named = [value for key, value in zip(settings, values, strict=True) if key in lists]
        parts = [value.rpartition(".")[2] if isinstance(value, str) else str(value) for value in named]
        name = "-".join([Path(config).stem, *parts, *([f"seed{seed}"] if "seeds" in group else [])])
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in zip(settings, values, strict=True))
        yield Run(name, (path.parent / config).resolve(), overrides, seed, output / name)


def make(run: Run, device: str | None) -> bool:
    """Trains and tests; what a run prints goes to its log. Returns whether it succeeded."""
    log_of(run).parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(run), "w") as log:
        return subprocess.run(run.command(device), stdout=log, stderr=subprocess.STDOUT).returncode == 0


def time_student(run: Run, device: str | None) -> None:
    """Writes the run's latency.json, unless it is there and newer than the weights."""
    path, weights = run.folder / "latency.json", run.folder / "weights.safetensors"
    if path.is_file() and path.stat().st_mtime > weights.stat().st_mtime:
        return
    share_cores()
    config = load_config(run.folder / "config.resolved.yaml", mode="test").data
    if "student_model" not in config["models"]:
        return
    place = usable_device(device or default_device())
    config["models"]["student_model"]["kwargs"].pop("trained_parts", None)
    student = build_model("student_model", config["models"]["student_model"], place)
    load_into(student, weights)
    loader = test_loader(config)
    write_atomically(path, json.dumps(latency(student, loader, place)).encode())


def log_of(run: Run) -> Path:
    return run.folder.parent / f"{run.folder.name}.log"


def row_of(run: Run) -> dict[str, object]:
    """Returns a run's row: what was run, what came out, and what it cost."""
    test = json.loads((run.folder / "test.json").read_text())
    epochs = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    student = test.get("student") or test["model"]
    row = {
        "run": run.name,
        "config": run.config.relative_to(ROOT).as_posix() if run.config.is_relative_to(ROOT) else str(run.config),
        "set": " ".join(run.overrides),
        "seed": run.seed,
        "images": student["images"],
        "top1": round(student["top1"], 3),
        "top5": round(student["top5"], 3),
        "predictive_loss": round(test["predictive_loss"], 3) if "predictive_loss" in test else "",
        "first_loss": round(epochs[0]["loss"], 1),
        "last_loss": round(epochs[-1]["loss"], 1),
        "training_s": round(sum(epoch["seconds"] for epoch in epochs)),
        "git_revision": test["git_revision"],
    }
    if "student" in test:
        row |= {
            "string_bytes": round(student["strings_kb"] * KILOBYTE, 2),
            "sent_bytes": round(student["sent_kb"] * KILOBYTE, 2),
            "bpp_bytes": round(student["bpp_bytes"], 5),
            "bpp_likelihood": round(student["bpp_likelihood"], 5),
            "edge_parameters": student["edge_parameters"],
        }
        timed = run.folder / "latency.json"
        row |= {name: round(ms, 1) for name, ms in json.loads(timed.read_text()).items()} if timed.is_file() else {}
    return row


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes the table as CSV, whole or not at all."""
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def table(rows: list[dict[str, object]]) -> str:
    """Lays the rows out as a Markdown table."""
    columns = {
        "run": "run",
        "top1": "top-1 %",
        "predictive_loss": "loss, points",
        "first_loss": "first epoch's loss",
        "last_loss": "last",
        "string_bytes": "strings, bytes",
        "bpp_bytes": "bpp, bytes",
        "bpp_likelihood": "bpp, likelihoods",
        "encode_ms": "encode ms",
        "decode_ms": "decode ms",
        "training_s": "training s",
    }
    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
