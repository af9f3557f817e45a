"""The runs of a sweep: groups, names, overrides, and what each begins with."""

import fnmatch
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from misc.config.load import compose_config, read_plain
from misc.errors import UserError, did_you_mean
from misc.files import ROOT
from misc.sweeps.maps import Maps, maps_of
from misc.training.checkpoint import CHECKPOINT
from misc.training.run_folder import CONFIG, FACTS

GROUP_KEYS = ("method", "name", "configs", "set", "seeds", "after")
BEGINS_WITH = "models.student_model.kwargs.trained_parts.weights_path"
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
