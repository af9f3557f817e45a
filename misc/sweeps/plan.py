"""The plan of a sweep: its runs, their names and overrides, and the weights and maps they need."""

import fnmatch
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import yaml

from misc.config.load import Config, compose_config, read_plain
from misc.config.nodes import lookup, text_of, walk
from misc.errors import UserError, did_you_mean
from misc.files import ROOT
from misc.sweeps.maps import Maps, maps_of, read_maps
from misc.training.run_folder import CONFIG, FACTS, WEIGHTS

GROUP_KEYS = ("method", "name", "configs", "set", "seeds", "after", "gpus")
TRAINED_PARTS = "models.student_model.kwargs.trained_parts.weights_path"


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its config, overrides and seed, its run folder, and the GPUs it asks a cluster for.

    They are 0 or 1; None asks for one where the cluster has any.
    """

    name: str
    method: str
    config: Path
    overrides: tuple[str, ...]
    seed: int
    folder: Path
    gpus: int | None = None

    @cached_property
    def composed(self) -> Config:
        """The config with the overrides, as it was when the sweep began."""
        return compose_config(self.config, self.overrides)

    @property
    def lmbda(self) -> float | None:
        """The weight of the rate; None if the config has none."""
        return self.composed.construct("lmbda") if self.composed.has("lmbda") else None

    @cached_property
    def begins_with(self) -> str | None:
        """The name of the run whose weights it begins with, which is that of their folder; None if there is none."""
        weights = weights_of_runs(self.composed, "trained_parts", "weights_path")
        return weights[0].parent.name if weights else None

    def command(self, device: str | None) -> list[str]:
        """Return the command that trains and tests it; it resumes an interrupted run, and begins an outdated one anew.

        Started again, it resumes, also where nothing of the run was there when it was asked for.
        """
        command = [sys.executable, str(ROOT / "main_classification_torchdistill.py"), "--config", str(self.config)]
        for override in self.overrides:
            command += ["--set", override]
        command += ["--seed", str(self.seed), "--run_dir", str(self.folder), "--skip_ckpt"]
        if not self.is_outdated():
            command.append("--resume")
        return command + (["--device", device] if device else [])

    def is_done(self) -> bool:
        """Whether the run folder has test results of this config and seed, begun with the present weights."""
        return (self.folder / "test.json").is_file() and not self.is_outdated()

    def is_outdated(self) -> bool:
        """Whether the run folder has a run of another config or seed, or older than weights that it begins with."""
        if not self.folder.exists():
            return False
        resolved, facts = self.folder / CONFIG, self.folder / FACTS
        if not resolved.is_file() or not facts.is_file():
            return True
        config = compose_config(self.config, self.overrides)  # a config may be edited while the sweep runs
        if resolved.read_text() != config.resolved or json.loads(facts.read_text())["seed"] != self.seed:
            return True
        begun = resolved.stat().st_mtime
        sources = weights_of_runs(config, "weights_path")
        return not all(source.is_file() and source.stat().st_mtime < begun for source in sources)


class Sweep(NamedTuple):
    """A sweep file.

    Attributes:
        results: where the table of results is written.
        maps: folders of saliency maps that its runs may need.
        groups: runs, in the order in which the groups run.
    """

    results: Path
    maps: list[Maps]
    groups: list[list[Run]]

    @property
    def runs(self) -> list[Run]:
        """The runs of all groups."""
        return list(itertools.chain(*self.groups))


def weights_of_runs(config: Config, *path: str) -> list[Path]:
    """Return the weights files of runs that the keys `path` name, anywhere in a config."""
    nodes = walk(yaml.compose(config.resolved, Loader=yaml.SafeLoader))
    texts = (text_of(lookup(node, *path)) for _, node in nodes)
    return [ROOT / Path(text).expanduser() for text in texts if text and Path(text).name == WEIGHTS]


def names(runs: Sequence[Run]) -> list[str]:
    """Return the names of runs."""
    return [run.name for run in runs]


def selected(groups: Sequence[Sequence[Run]], pattern: str) -> list[list[Run]]:
    """Return the groups with the runs whose names match a shell pattern.

    Raises:
        UserError: no name matches.
    """
    chosen = [[run for run in group if fnmatch.fnmatchcase(run.name, pattern)] for group in groups]
    if not any(chosen):
        known = [run.name for group in groups for run in group]
        raise UserError(f"--only {pattern} names none of the {len(known)} runs{did_you_mean(pattern, known)}")
    return chosen


def needed_maps(runs: Sequence[Run], all_maps: Sequence[Maps]) -> dict[Run, Maps | None]:
    """Return the maps each run needs; mistakes in any config show before the first run begins.

    Raises:
        UserError: a config has a mistake, or the sweep file does not name its maps.
    """
    needs = {}
    for run in runs:
        config = run.composed
        try:
            needs[run] = maps_of(config, all_maps)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
    return needs


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: the file is missing or malformed, or has unknown keys.
    """
    content = read_plain(path)
    if set(content) - {"maps"} != {"output", "results", "groups"}:
        raise UserError(f"{path}: expected the keys 'output', 'results', 'groups' and optionally 'maps', no others")
    maps = read_maps(content.get("maps", {}), path)
    groups: list[list[Run]] = []
    for group in content["groups"]:
        groups.append(list(_runs_of(group, path, ROOT / content["output"], list(itertools.chain(*groups)))))
    sweep = Sweep(ROOT / content["results"], maps, groups)
    all_names = names(sweep.runs)
    duplicate = next((name for name in all_names if all_names.count(name) > 1), None)
    if duplicate is not None:
        raise UserError(f"{path}: two runs are called {duplicate}")
    return sweep


def _runs_of(group: dict, path: Path, output: Path, earlier: Sequence[Run]) -> Iterator[Run]:
    """Yield the runs of one group.

    A run's name joins the config's name or the group's `name`, the earlier run it begins with, and its value of each
    list in `set`.

    Raises:
        UserError: there are no configs, a key is unknown, `after` names no earlier run, or `gpus` is no number.
    """
    if "configs" not in group:
        raise UserError(f"{path}: a group has no 'configs'")
    for key in group:
        if key not in GROUP_KEYS:
            raise UserError(f"{path}: unknown key '{key}' in a group{did_you_mean(key, GROUP_KEYS)}")
    lists = {key for key, value in group.get("set", {}).items() if isinstance(value, list)}
    settings = {key: value if key in lists else [value] for key, value in group.get("set", {}).items()}
    sources = _earlier_runs(group["after"], earlier, path) if "after" in group else [None]
    seeds, gpus = group.get("seeds", [None]), group.get("gpus")
    if gpus not in (None, 0, 1):
        raise UserError(f"{path}: gpus of a group is {gpus!r}; expected 0 or 1 (torchrun takes several)")
    choices = itertools.product(group["configs"], sources, itertools.product(*settings.values()), seeds)
    for config, source, values, seed in choices:
        chosen = dict(zip(settings, values, strict=True))
        named = [value for key, value in chosen.items() if key in lists]
        parts = [group.get("name", Path(config).stem)]
        parts += [source.name] if source else []
        parts += [value.rpartition(".")[2] if isinstance(value, str) else str(value) for value in named]
        parts += [] if seed is None else [f"seed{seed}"]
        if seed is None:
            seed = source.seed if source else 0
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in chosen.items())
        overrides += (_beginning(source),) if source else ()
        name, method = "-".join(parts), group.get("method", Path(config).stem)
        yield Run(name, method, (path.parent / config).resolve(), overrides, seed, output / name, gpus)


def _beginning(source: Run) -> str:
    """Return the override by which a run begins with the weights of another."""
    weights = source.folder / WEIGHTS
    inside = weights.relative_to(ROOT) if weights.is_relative_to(ROOT) else weights
    return f"{TRAINED_PARTS}={json.dumps(inside.as_posix())}"


def _earlier_runs(patterns: Sequence[str], earlier: Sequence[Run], path: Path) -> list[Run]:
    """Return the runs of earlier groups that match a pattern of `after`.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(names(earlier), pattern):
            raise UserError(f"{path}: 'after' names no earlier run: {pattern}{did_you_mean(pattern, names(earlier))}")
    return [run for run in earlier if any(fnmatch.fnmatchcase(run.name, pattern) for pattern in patterns)]
