"""Runs every experiment of a sweep, each in a process of its own, and writes one table row for each.

A sweep file lists groups; a group is the product of its configs, the values under `set` and its seeds:

    output: resources/sweeps/priors         # run folders and logs, relative to the repository root
    results: results/priors.csv             # one row per run, relative to the repository root
    maps:                                   # folders of saliency maps, made in front of the first run that needs them
      resources/saliency_maps/digits/train: # the map_root of such a run
        config: phd_resnet.yaml             # flags of saliency_maps/cam_prep/cam_map_generation.py, without --output
        input: resources/datasets/digits/train
        mix_layers: true
    groups:
      - method: head distillation           # what the rows are called in tables and plots (default: the config's name)
        configs: [phd_resnet.yaml]          # relative to the sweep file
        set:
          train.stage1.num_epochs: 3        # one value, or a list of which each makes a run and names it
          lmbda: [0.03, 0.06]
        seeds: [0]                          # default, or the seed of the run that it begins with
      - configs: [finetune_resnet.yaml]
        after: [phd_resnet-*]               # one run for each of these earlier ones, whose weights it begins with
        name: tuned                         # what the runs are called (default: the config's name)

A sweep given again goes on, also in the middle of a run: one is made anew only where its config, its seed or another
run's weights that it begins with have changed since, or where its test is missing. Runs begin from scratch, or from
what `after` or their config's `trained_parts` names; a group begins when those before it have ended. What was not run
has a row too, which says so. A run that fails, or whose maps fail, is reported at the end, after the others, and makes
the exit code 1.
Training is timed with `--jobs` runs on the machine; encoding and decoding at the end, all students in turn, as soon as
one of them has not been.
"""

import argparse
import csv
import fnmatch
import functools
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.atomic import write_atomically
from misc.checkpoint import CHECKPOINT
from misc.config import compose_config, read_plain
from misc.device import default_device, usable_device
from misc.errors import UserError, did_you_mean, exit_on_user_error
from misc.evaluation import KILOBYTE, latencies_in_turn, latency, test_loader
from misc.models import load_student
from misc.progress import progress_bar
from misc.run_folder import CONFIG, FACTS, ROOT
from misc.sweep_maps import Maps, maps_of, read_maps

GROUP_KEYS = ("method", "name", "configs", "set", "seeds", "after")
BEGINS_WITH = "models.student_model.kwargs.trained_parts.weights_path"
NOT_RUN = "not run"
COLUMNS = (
    *("run", "method", "config", "set", "seed", "images", "top1", "top5", "predictive_loss"),
    *("first_loss", "last_loss", "training_s", "git_revision"),
    *("string_bytes", "sent_bytes", "bpp_bytes", "bpp_likelihood", "edge_parameters", "encode_ms", "decode_ms"),
)
WEIGHTS_OF_A_RUN = re.compile(r"""weights_path: !path ['"]?(.+/weights\.safetensors)""")


@dataclass(frozen=True)
class Run:
    """One experiment of a sweep: its config, overrides and seed, and the folder it is made in."""

    name: str
    method: str
    config: Path
    overrides: tuple[str, ...]
    seed: int
    folder: Path

    def command(self, device: str | None) -> list[str]:
        """Returns what trains and tests it: from scratch, or on from where it was killed."""
        command = [sys.executable, str(ROOT / "main_classification_torchdistill.py"), "--config", str(self.config)]
        for override in self.overrides:
            command += ["--set", override]
        command += ["--seed", str(self.seed), "--run_dir", str(self.folder), "--skip_ckpt"]
        if self._holds(CHECKPOINT):
            command.append("--resume")
        return command + (["--device", device] if device else [])

    def is_done(self) -> bool:
        """Whether the run folder holds the test of this very config and seed, made after the weights it begins with."""
        return self._holds("test.json")

    def _holds(self, name: str) -> bool:
        file, resolved, facts = (self.folder / each for each in (name, CONFIG, FACTS))
        if not file.is_file() or not resolved.is_file() or not facts.is_file():
            return False
        wanted = compose_config(self.config, self.overrides).resolved
        if resolved.read_text() != wanted or json.loads(facts.read_text())["seed"] != self.seed:
            return False
        sources = (ROOT / Path(path).expanduser() for path in WEIGHTS_OF_A_RUN.findall(wanted))
        return all(source.is_file() and source.stat().st_mtime < file.stat().st_mtime for source in sources)


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("sweep", type=Path, metavar="FILE", help="the sweep file")
    parser.add_argument("--device", help="of every run; default: a run's own")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs by name, as phd_* (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    sweep, groups = read_sweep(args.sweep)
    runs = [run for group in groups for run in group]
    needs = needed_maps(runs, read_maps(sweep.get("maps", {}), args.sweep))
    groups = [[run for run in group if fnmatch.fnmatchcase(run.name, args.only)] for group in groups]
    chosen = [run for group in groups for run in group]
    if not chosen:
        raise UserError(f"--only {args.only} names none of the {len(runs)} runs{did_you_mean(args.only, names(runs))}")
    failed = []
    make_maps = functools.cache(lambda maps: maps.make(args.device))
    with ThreadPoolExecutor(args.jobs) as pool, progress_bar(None, "sweep", len(chosen), unit="runs") as bar:
        for group in groups:
            lacking = [run for run in group if needs[run] and not run.is_done() and not make_maps(needs[run])]
            for run in lacking:
                failed.append(f"{run.name} (its maps)")
                bar.write(f"{run.name}: not begun, as its maps failed: {needs[run].folder}")
                bar.update()
            ready = [run for run in group if run not in lacking]
            for run, succeeded in pool.map(lambda run: (run, run.is_done() or make(run, args.device)), ready):
                if not succeeded:
                    failed.append(run.name)
                    bar.write(f"{run.name}: failed, see {log_of(run)}")
                bar.update()
                write_rows(ROOT / sweep["results"], [row_of(run) for run in runs])
    done = [run for run in runs if run.is_done()]
    time_students(done, args.device)
    rows = [row_of(run) for run in runs]
    write_rows(ROOT / sweep["results"], rows)
    print(f"{table(rows)}\n\nResults: {ROOT / sweep['results']}")
    if failed:
        print(f"{len(failed)} of {len(chosen)} runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def names(runs: Sequence[Run]) -> list[str]:
    return [run.name for run in runs]


def needed_maps(runs: Sequence[Run], all_maps: Sequence[Maps]) -> dict[Run, Maps | None]:
    """Returns the maps that each run needs; a mistake in the last one's config shows before the first is made.

    Raises:
        UserError: a config with a mistake, or one whose maps the sweep file does not name.
    """
    needs = {}
    for run in runs:
        config = compose_config(run.config, run.overrides)
        try:
            needs[run] = maps_of(config, all_maps)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
    return needs


def read_sweep(path: Path) -> tuple[dict, list[list[Run]]]:
    """Returns the sweep file and the runs of each group.

    Raises:
        UserError: a file that is missing, malformed, or names unknown keys.
    """
    sweep = read_plain(path)
    if set(sweep) - {"maps"} != {"output", "results", "groups"}:
        raise UserError(f"{path}: a sweep holds 'output', 'results', 'groups' and perhaps 'maps' (and nothing else)")
    groups: list[list[Run]] = []
    for group in sweep["groups"]:
        groups.append(list(runs_of(group, path, ROOT / sweep["output"], list(itertools.chain(*groups)))))
    all_names = [run.name for group in groups for run in group]
    doubled = next((name for name in all_names if all_names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f"{path}: two runs are called {doubled}")
    return sweep, groups


def runs_of(group: dict, path: Path, output: Path, earlier: Sequence[Run]) -> Iterator[Run]:
    """Yields the runs of one group.

    A run's name tells the config, or the group's `name`, the earlier run that it begins with, and its value of every
    list in the group.

    Raises:
        UserError: no configs, an unknown key, or no such earlier run.
    """
    if "configs" not in group:
        raise UserError(f"{path}: a group has no 'configs'")
    for key in group:
        if key not in GROUP_KEYS:
            raise UserError(f"{path}: unknown key '{key}' in a group{did_you_mean(key, GROUP_KEYS)}")
    lists = {key for key, value in group.get("set", {}).items() if isinstance(value, list)}
    settings = {key: value if key in lists else [value] for key, value in group.get("set", {}).items()}
    sources = begins_with(group["after"], earlier, path) if "after" in group else [None]
    seeds = group.get("seeds", [None])
    choices = itertools.product(group["configs"], sources, itertools.product(*settings.values()), seeds)
    for config, source, values, seed in choices:
        named = [value for key, value in zip(settings, values, strict=True) if key in lists]
        parts = [value.rpartition(".")[2] if isinstance(value, str) else str(value) for value in named]
        origin = [source.name] if source else []
        name = "-".join(
            [group.get("name", Path(config).stem), *origin, *parts, *([] if seed is None else [f"seed{seed}"])]
        )
        if seed is None:
            seed = source.seed if source else 0
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in zip(settings, values, strict=True))
        if source:
            weights = source.folder / "weights.safetensors"
            inside = weights.relative_to(ROOT) if weights.is_relative_to(ROOT) else weights
            overrides += (f"{BEGINS_WITH}={json.dumps(inside.as_posix())}",)
        method = group.get("method", Path(config).stem)
        yield Run(name, method, (path.parent / config).resolve(), overrides, seed, output / name)


def begins_with(patterns: Sequence[str], earlier: Sequence[Run], path: Path) -> list[Run]:
    """Returns the runs of earlier groups that `after` names.

    Raises:
        UserError: a pattern that names none.
    """
    for pattern in patterns:
        if not fnmatch.filter(names(earlier), pattern):
            raise UserError(f"{path}: 'after' names no earlier run: {pattern}{did_you_mean(pattern, names(earlier))}")
    return [run for run in earlier if any(fnmatch.fnmatchcase(run.name, pattern) for pattern in patterns)]


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
    return latency(student, test_loader(config), device)


def log_of(run: Run) -> Path:
    return run.folder.parent / f"{run.folder.name}.log"


def row_of(run: Run) -> dict[str, object]:
    """Returns a run's row: what was run, what came out, and what it cost; only the first where it was not run."""
    row: dict[str, object] = {
        "run": run.name,
        "method": run.method,
        "config": run.config.relative_to(ROOT).as_posix() if run.config.is_relative_to(ROOT) else str(run.config),
        "set": " ".join(run.overrides),
        "seed": run.seed,
    }
    if not run.is_done():
        return row | {"images": NOT_RUN}
    test = json.loads((run.folder / "test.json").read_text())
    epochs = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    student = test.get("student") or test["model"]
    row |= {
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
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def table(rows: list[dict[str, object]]) -> str:
    """Lays the rows of what was run out as a Markdown table, and says how many were not."""
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
    done = [row for row in rows if row["images"] != NOT_RUN]
    lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in done]
    return "\n".join([*lines, *([f"\n{len(rows) - len(done)} of {len(rows)} runs: {NOT_RUN}"] if done != rows else [])])


if __name__ == "__main__":
    main()
