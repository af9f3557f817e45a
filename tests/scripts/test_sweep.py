import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest

from misc.config import compose_config
from misc.digits_on_photographs import write_data_set
from misc.errors import UserError
from misc.run_folder import ROOT
from scripts import sweep

TINY = {
    "train.num_epochs": 1,
    "train.train_data_loader.kwargs.batch_size": 20,
    "train.scheduler.kwargs.steps_per_epoch": 2,
}


@pytest.fixture
def write(tmp_path):
    def write(groups: list[dict]) -> Path:
        path = tmp_path / "sweep.yaml"
        content = {"output": str(tmp_path / "runs"), "results": str(tmp_path / "rows.csv"), "groups": groups}
        path.write_text(json.dumps(content))
        return path

    return write


def test_a_group_is_the_product_of_configs_values_and_seeds(write):
    group = {"configs": ["a.yaml", "b.yaml"], "set": {"lmbda": [0.1, 0.2], "x.key": "model.One"}, "seeds": [0, 1]}
    _, (runs,) = sweep.read_sweep(write([group]))
    assert len({run.name for run in runs}) == len(runs) == 8
    assert runs[0].name == "a-0.1-seed0" and runs[0].overrides == ("lmbda=0.1", 'x.key="model.One"')
    assert runs[0].command(None)[1:4:2] == [str(ROOT / "main_classification_torchdistill.py"), str(runs[0].config)]


def test_a_group_begins_with_the_weights_of_earlier_runs(write):
    first = {"method": "distilled", "configs": ["a.yaml"], "set": {"lmbda": [0.1, 0.2]}}
    tuned = {"configs": ["b.yaml"], "after": ["a-0.*"]}
    path = write([first, tuned, {**tuned, "name": "other", "method": "others"}])
    content = json.loads(path.read_text()) | {"output": "resources/sweeps/s"}
    path.write_text(json.dumps(content))
    _, (sources, runs, others) = sweep.read_sweep(path)
    assert [run.name for run in runs] == ["b-a-0.1", "b-a-0.2"]
    assert runs[1].overrides == (f'{sweep.BEGINS_WITH}="resources/sweeps/s/a-0.2/weights.safetensors"',)
    assert [run.method for run in (*sources, *runs)] == ["distilled", "distilled", "b", "b"]
    assert [(run.name, run.method) for run in others] == [("other-a-0.1", "others"), ("other-a-0.2", "others")]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"configs": ["a.yaml"]}, {"configs": ["b.yaml"], "after": ["c*"]}], "'after' names no earlier run: c\\*"),
        ([{"configs": ["a.yaml"], "sett": {}}], "unknown key 'sett' in a group; did you mean 'set'"),
        ([{"set": {}}], "a group has no 'configs'"),
        ([{"configs": ["a.yaml"]}, {"configs": ["a.yaml"]}], "two runs are called a"),
    ],
)
def test_mistakes_are_named(write, groups, message):
    with pytest.raises(UserError, match=message):
        sweep.read_sweep(write(groups))


def test_a_run_with_another_seed_or_older_than_its_source_is_not_done(tmp_path):
    source, folder = tmp_path / "sweeps" / "s" / "first" / "weights.safetensors", tmp_path / "sweeps" / "s" / "second"
    parts = f"models.student_model.kwargs.trained_parts.weights_path={source}"
    config = ROOT / "config/quickstart/reuse_swin_from_resnet.yaml"
    run = sweep.Run("second", "method", config, (parts,), 0, folder)
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
    os.utime(folder / "test.json", (0, 0))
    assert not run.is_done()
    assert "--resume" not in run.command(None)
    (folder / "checkpoint.pt").touch()
    assert run.command(None)[-1] == "--resume"
    assert "--resume" not in dataclasses.replace(run, seed=1).command(None)


def test_a_file_that_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text("runs: []")
    with pytest.raises(UserError, match="holds 'output', 'results' and 'groups'"):
        sweep.read_sweep(tmp_path / "sweep.yaml")


@pytest.mark.slow
def test_runs_are_made_once_and_a_failed_one_is_told_after_the_others(write, tmp_path, capsys):
    write_data_set(tmp_path / "digits", num_train=40, num_val=20)
    settings = {**TINY, "dataset_root": str(tmp_path / "digits")}
    config = str(ROOT / "config/quickstart/teacher_resnet.yaml")
    broken = {**settings, "train.optimizer.kwargs.lr": 1e30, "train.scheduler.kwargs.max_lr": 1e30}
    path = write([{"configs": [config], "set": broken}, {"configs": [config], "set": settings, "seeds": [0, 1]}])
    _, groups = sweep.read_sweep(path)
    runs = [run for group in groups for run in group]
    assert len(runs) == 3
    with pytest.raises(SystemExit) as stop:
        sweep.main([str(path), "--device", "cpu"])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert "1 of 3 runs failed: teacher_resnet" in captured.err
    assert captured.out.count("| teacher_resnet-seed") == 2
    with open(tmp_path / "rows.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "0", "1"]
    assert rows[0]["images"] == "not run" and all(float(row["top1"]) >= 0 for row in rows[1:])
    assert "| teacher_resnet | not run | not run |" in captured.out
    done = [run for run in runs if run.is_done()]
    assert len(done) == 2
    before = [(run.folder / "test.json").stat().st_mtime_ns for run in done]
    sweep.main([str(path), "--device", "cpu", "--only", "teacher_resnet-*"])
    assert [(run.folder / "test.json").stat().st_mtime_ns for run in done] == before
