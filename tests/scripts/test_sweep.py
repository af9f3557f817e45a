import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest

from misc.config.load import compose_config
from misc.datasets.digits import write_data_set
from misc.errors import UserError
from misc.files import ROOT
from misc.sweeps.maps import Maps, read_maps
from saliency_maps.map_folder import MapFolder
from scripts import sweep

TINY = {
    "train.num_epochs": 1,
    "train.train_data_loader.kwargs.batch_size": 20,
}


@pytest.fixture
def write(tmp_path):
    def write(groups: list[dict], **others) -> Path:
        path = tmp_path / "sweep.yaml"
        content = {"output": str(tmp_path / "runs"), "results": str(tmp_path / "rows.csv"), "groups": groups, **others}
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
    path = write([first, tuned, {**tuned, "name": "other", "method": "others", "set": {"lmbda": [0.3]}}])
    content = json.loads(path.read_text()) | {"output": "resources/sweeps/s"}
    _, (_, (outside, _), _) = sweep.read_sweep(path)
    assert outside.overrides == (f'{sweep.BEGINS_WITH}="{path.parent}/runs/a-0.1/weights.safetensors"',)
    path.write_text(json.dumps(content))
    _, (sources, runs, others) = sweep.read_sweep(path)
    assert [run.name for run in runs] == ["b-a-0.1", "b-a-0.2"]
    assert runs[1].overrides == (f'{sweep.BEGINS_WITH}="resources/sweeps/s/a-0.2/weights.safetensors"',)
    assert [run.method for run in (*sources, *runs)] == ["distilled", "distilled", "b", "b"]
    assert [(run.name, run.method) for run in others] == [("other-a-0.1-0.3", "others"), ("other-a-0.2-0.3", "others")]
    assert [run.overrides for run in others] == [("lmbda=0.3", *run.overrides) for run in runs]


def test_a_run_has_the_seed_of_the_one_that_it_begins_with(write):
    first = {"configs": ["a.yaml"], "seeds": [0, 1]}
    tuned = {"configs": ["b.yaml"], "after": ["a-*"]}
    _, (_, runs, others) = sweep.read_sweep(write([first, tuned, {**tuned, "name": "c", "seeds": [2]}]))
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
def test_mistakes_are_named(write, groups, message):
    with pytest.raises(UserError, match=message):
        sweep.read_sweep(write(groups))


def test_maps_are_made_in_front_of_the_first_chosen_run_that_needs_them(write, tmp_path, monkeypatch, capsys):
    done = []

    def make_maps(maps, device):
        done.append(maps.folder.name)
        return maps.folder.name != "broken"

    monkeypatch.setattr(Maps, "make", make_maps)
    monkeypatch.setattr(sweep, "make", lambda run, device: done.append(run.name) or True)
    guided = {"configs": [str(ROOT / "config/quickstart/sg_resnet.yaml")]}
    plain = {"configs": [str(ROOT / "config/quickstart/phd_resnet.yaml")], "set": {"lmbda": [0.1, 0.2]}}
    roots = {name: str(tmp_path / name) for name in ("first", "broken", "unused")}
    groups = [
        plain,
        {**guided, "name": "guided", "set": {"map_root": roots["first"]}, "seeds": [0, 1]},
        {**guided, "name": "unmade", "set": {"map_root": roots["broken"]}, "seeds": [0, 1]},
        {**guided, "name": "more", "set": {"map_root": roots["first"]}},
    ]
    path = write(groups, maps={root: {"config": "a.yaml", "input": "images"} for root in roots.values()})
    with pytest.raises(SystemExit):
        sweep.main([str(path)])
    runs = ["phd_resnet-0.1", "phd_resnet-0.2", "first", "guided-seed0", "guided-seed1", "broken", "more"]
    assert done == runs
    said = capsys.readouterr()
    assert f"unmade-seed1: not begun, as its maps failed: {tmp_path / 'broken'}" in said.out + said.err
    assert "2 of 7 runs failed: unmade-seed0 (its maps), unmade-seed1 (its maps)" in said.err
    done.clear()
    sweep.main([str(path), "--only", "phd_*"])
    assert done == ["phd_resnet-0.1", "phd_resnet-0.2"]
    done.clear()
    monkeypatch.setattr(sweep.Run, "is_done", lambda run: run.name.startswith("guided"))
    monkeypatch.setattr(sweep, "row_of", lambda run: {"run": run.name, "images": "not run"})
    monkeypatch.setattr(sweep, "time_students", lambda runs, device: None)
    sweep.main([str(path), "--only", "guided*"])
    assert done == []


def test_maps_are_flags_by_folder(tmp_path):
    flags = {"config": "a.yaml", "input": "images", "mix_layers": True, "eigen_smooth": False, "num_workers": 0}
    (maps,) = read_maps({"resources/maps/../here": flags}, tmp_path / "sweep.yaml")
    assert maps.folder == ROOT / "resources/here"
    assert maps.arguments == (
        f"--config={tmp_path / 'a.yaml'}",
        "--input=images",
        "--mix_layers",
        "--num_workers=0",
        f"--output={ROOT / 'resources/here'}",
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mix_layer": True}, "unknown flag 'mix_layer' of the maps m; did you mean 'mix_layers'"),
        ({"output": "n"}, "unknown flag 'output'"),
        ({"saliency_type": "GradCAM++"}, "the maps m: argument --saliency_type: invalid choice: 'GradCAM\\+\\+'"),
        ({"target_dim": 28}, "the maps m: --target_dim sets the side of the maps of --patch_cam: give both"),
        ({"model": "a"}, "the maps m: argument --model: not allowed with argument --config"),
    ],
)
def test_mistakes_in_maps_are_named(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        read_maps({"m": {"config": "a.yaml", "input": "images", **flags}}, tmp_path / "sweep.yaml")


def test_maps_that_are_no_mapping_or_do_not_name_a_runs_folder_are_refused(write, tmp_path, capsys):
    with pytest.raises(UserError, match="'maps' holds folders"):
        read_maps(["m"], tmp_path / "sweep.yaml")
    group = {"configs": [str(ROOT / "config/quickstart/sg_resnet.yaml")], "set": {"map_root": "/maps/one"}}
    path = write([group], maps={"/maps/ones": {"config": "a.yaml", "input": "images"}})
    with pytest.raises(SystemExit):
        sweep.main([str(path)])
    expected = "sg_resnet: 'maps' does not name its map_root /maps/one; did you mean '/maps/ones'?"
    assert expected in capsys.readouterr().err


def test_the_repositorys_sweep_makes_every_map_that_it_needs():
    path = ROOT / "config/tiny_imagenet/sweep.yaml"
    content, groups = sweep.read_sweep(path)
    all_maps = read_maps(content["maps"], path)
    runs = [run for group in groups for run in group if run.config.stem == "guided_resnet"][::3]
    assert set(sweep.needed_maps(runs, all_maps).values()) == set(all_maps)


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("sweep.yaml")), ids=lambda path: path.parent.name)
def test_the_repositorys_sweeps_name_configs_and_values_that_exist(path):
    _, groups = sweep.read_sweep(path)
    for run in [run for group in groups for run in (group[0], group[-1])]:
        assert "num_epochs: " in compose_config(run.config, run.overrides).resolved


@pytest.mark.slow
def test_maps_are_made(tmp_path):
    write_data_set(tmp_path / "digits", num_train=10, num_val=10)
    config = str(ROOT / "config/quickstart/sg_resnet.yaml")
    flags = {"config": config, "input": str(tmp_path / "digits/train"), "patch_cam": True}
    (maps,) = read_maps({str(tmp_path / "maps"): flags}, tmp_path / "sweep.yaml")
    assert maps.make("cpu")
    assert len(MapFolder(maps.folder).names) == MapFolder(maps.folder).manifest["num_maps"] == 10
    (others,) = read_maps({str(tmp_path / "maps"): {**flags, "target_dim": 14}}, tmp_path / "sweep.yaml")
    assert not others.make("cpu")  # the folder holds maps of other settings


def test_a_run_with_another_seed_or_older_than_its_source_is_not_done(tmp_path):
    source, folder = tmp_path / "any sweep" / "first" / "weights.safetensors", tmp_path / "any sweep" / "second"
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


def test_students_are_timed_all_together_and_not_again(tmp_path, monkeypatch):
    runs = [sweep.Run(name, "method", Path("a.yaml"), (), 0, tmp_path / name) for name in ("one", "two", "teacher")]
    for run in runs:
        run.folder.mkdir()
        (run.folder / "test.json").write_text('{"model": {}}' if run.name == "teacher" else '{"student": {}}')
        (run.folder / "weights.safetensors").touch()
        os.utime(run.folder / "weights.safetensors", (1, 1))
    timed = []
    monkeypatch.setattr(sweep, "latency_of", lambda run, device: timed.append(run.name) or {"encode_ms": len(timed)})
    sweep.time_students(runs, "cpu")
    assert timed == ["one", "two"] * 5 and not (runs[2].folder / "latency.json").exists()
    assert [json.loads((run.folder / "latency.json").read_text()) for run in runs[:2]] == [
        {"encode_ms": 5},
        {"encode_ms": 6},
    ]
    sweep.time_students(runs, "cpu")
    assert len(timed) == 10
    os.utime(runs[0].folder / "latency.json", (0, 0))  # the weights are newer
    sweep.time_students(runs, "cpu")
    assert len(timed) == 20


def test_a_file_that_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text("runs: []")
    with pytest.raises(UserError, match="holds 'output', 'results', 'groups' and perhaps 'maps'"):
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
    assert "1 of 3 runs: not run" in captured.out
    done = [run for run in runs if run.is_done()]
    assert len(done) == 2
    before = [(run.folder / "test.json").stat().st_mtime_ns for run in done]
    sweep.main([str(path), "--device", "cpu", "--only", "teacher_resnet-*"])
    assert [(run.folder / "test.json").stat().st_mtime_ns for run in done] == before
