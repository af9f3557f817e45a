"""Names, overrides and seeds of a sweep's runs, and when a run is done."""

import dataclasses
import json
import os

import pytest

from misc.config.load import compose_config
from misc.errors import UserError
from misc.files import ROOT
from misc.sweeps.plan import TRAINED_PARTS, Run, needed_maps, read_sweep, selected, weights_of_runs


def test_a_group_is_the_product_of_configs_values_and_seeds(write_sweep):
    group = {"configs": ["a.yaml", "b.yaml"], "set": {"lmbda": [0.1, 0.2], "x.key": "model.One"}, "seeds": [0, 1]}
    (runs,) = read_sweep(write_sweep([group])).groups
    assert len({run.name for run in runs}) == len(runs) == 8
    assert runs[0].name == "a-0.1-seed0" and runs[0].overrides == ("lmbda=0.1", 'x.key="model.One"')
    assert runs[0].command(None)[1:4:2] == [str(ROOT / "main_classification_torchdistill.py"), str(runs[0].config)]


def test_a_group_begins_with_the_weights_of_earlier_runs(write_sweep):
    first = {"method": "distilled", "configs": ["a.yaml"], "set": {"lmbda": [0.1, 0.2]}}
    tuned = {"configs": ["b.yaml"], "after": ["a-0.*"]}
    path = write_sweep([first, tuned, {**tuned, "name": "other", "method": "others", "set": {"lmbda": [0.3]}}])
    content = json.loads(path.read_text()) | {"output": "resources/sweeps/s"}
    _, (outside, _), _ = read_sweep(path).groups
    assert outside.overrides == (f'{TRAINED_PARTS}="{path.parent}/runs/a-0.1/weights.safetensors"',)
    path.write_text(json.dumps(content))
    sources, runs, others = read_sweep(path).groups
    assert [run.name for run in runs] == ["b-a-0.1", "b-a-0.2"]
    assert runs[1].overrides == (f'{TRAINED_PARTS}="resources/sweeps/s/a-0.2/weights.safetensors"',)
    assert [run.method for run in (*sources, *runs)] == ["distilled", "distilled", "b", "b"]
    assert [(run.name, run.method) for run in others] == [("other-a-0.1-0.3", "others"), ("other-a-0.2-0.3", "others")]
    assert [run.overrides for run in others] == [("lmbda=0.3", *run.overrides) for run in runs]


def test_a_run_has_the_seed_of_the_run_it_begins_with(write_sweep):
    first = {"configs": ["a.yaml"], "seeds": [0, 1]}
    tuned = {"configs": ["b.yaml"], "after": ["a-*"]}
    _, runs, others = read_sweep(write_sweep([first, tuned, {**tuned, "name": "c", "seeds": [2]}])).groups
    assert [(run.name, run.seed) for run in runs] == [("b-a-seed0", 0), ("b-a-seed1", 1)]
    assert [(run.name, run.seed) for run in others] == [("c-a-seed0-seed2", 2), ("c-a-seed1-seed2", 2)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"configs": ["a.yaml"]}, {"configs": ["b.yaml"], "after": ["c*"]}], "'after' names no earlier run: c\\*"),
        ([{"configs": ["a.yaml"], "sett": {}}], "unknown key 'sett' in a group; did you mean 'set'"),
        ([{"set": {}}], "a group has no 'configs'"),
        ([{"configs": ["a.yaml"]}, {"configs": ["a.yaml"]}], "two runs are called a"),
    ],
)
def test_mistakes_are_named(write_sweep, groups, message):
    with pytest.raises(UserError, match=message):
        read_sweep(write_sweep(groups))


def test_a_file_that_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text("runs: []")
    with pytest.raises(UserError, match="expected the keys 'output', 'results', 'groups' and optionally 'maps'"):
        read_sweep(tmp_path / "sweep.yaml")


def test_the_repositorys_sweep_makes_all_maps_it_needs():
    path = ROOT / "config/tiny_imagenet/sweep.yaml"
    sweep = read_sweep(path)
    runs = [run for run in sweep.runs if run.config.stem == "guided_resnet"][::3]
    assert set(needed_maps(runs, sweep.maps).values()) == set(sweep.maps)


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("sweep.yaml")), ids=lambda path: path.parent.name)
def test_the_repositorys_sweeps_name_configs_and_values_that_exist(path):
    for run in [run for group in read_sweep(path).groups for run in (group[0], group[-1])]:
        assert "num_epochs: " in compose_config(run.config, run.overrides).resolved


def test_a_run_with_another_seed_or_older_than_its_source_is_not_done(tmp_path):
    source, folder = tmp_path / "any sweep" / "first" / "weights.safetensors", tmp_path / "any sweep" / "second"
    parts = f"models.student_model.kwargs.trained_parts.weights_path={source}"
    config = ROOT / "config/quickstart/reuse_swin_from_resnet.yaml"
    run = Run("second", "method", config, (parts,), 0, folder)
    for path in (source, folder / "test.json"):
        path.parent.mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text(compose_config(config, [parts]).resolved)
    (folder / "test.json").touch()
    (folder / "run.json").write_text('{"seed": 0}')
    assert not run.is_done()  # its source is not there
    source.touch()
    os.utime(source, (1, 1))
    assert run.is_done()
    assert not dataclasses.replace(run, seed=1).is_done()
    assert run.command(None)[-1] == "--resume"  # of a run that has ended, it makes what is missing of the test
    assert "--resume" not in dataclasses.replace(run, seed=1).command(None)
    os.utime(folder / "config.resolved.yaml", (0, 0))  # begun before its source's weights were written
    assert not run.is_done() and "--resume" not in run.command(None)
    fresh = dataclasses.replace(run, folder=tmp_path / "not there yet")
    assert fresh.command(None)[-1] == "--resume" and not fresh.is_done()


def test_the_weights_that_a_run_begins_with_are_named_by_its_config_and_overrides(tmp_path):
    config = ROOT / "config/quickstart/reuse_swin_from_resnet.yaml"
    own = Run("own", "method", config, (), 0, tmp_path)
    assert own.begins_with == "phd_resnet" and own.lmbda == 0.05
    # The teachers' weights are no run's.
    assert weights_of_runs(own.composed, "weights_path") == [
        ROOT / "resources/runs/quickstart/phd_resnet/weights.safetensors"
    ]
    other = (f"{TRAINED_PARTS}='{tmp_path}/it\"s: a [run]/weights.safetensors'", "lmbda=1")
    changed = dataclasses.replace(own, overrides=other)
    assert changed.begins_with == 'it"s: a [run]' and changed.lmbda == 1.0
    scratch = dataclasses.replace(own, config=ROOT / "config/quickstart/teacher_resnet.yaml")
    assert scratch.begins_with is None and scratch.lmbda is None


def test_a_pattern_selects_runs_within_their_groups(write_sweep):
    groups = read_sweep(write_sweep([{"configs": ["a.yaml", "b.yaml"]}, {"configs": ["ab.yaml"]}])).groups
    assert [[run.name for run in group] for group in selected(groups, "a*")] == [["a"], ["ab"]]
    with pytest.raises(UserError, match="--only aa names none of the 3 runs; did you mean 'a'"):
        selected(groups, "aa")
