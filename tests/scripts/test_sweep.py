"""The command line of a sweep."""

import shlex

import pytest

from main_classification_torchdistill import get_argparser
from misc.datasets.digits import write_data_set
from misc.files import ROOT
from misc.sweeps.maps import Maps
from misc.sweeps.plan import Run, read_sweep
from misc.sweeps.table import read_rows
from scripts import sweep

TINY = {
    "train.num_epochs": 1,
    "train.train_data_loader.kwargs.batch_size": 20,
}


def test_maps_that_do_not_name_a_runs_folder_are_refused(write_sweep, capsys):
    group = {"configs": [str(ROOT / "config/quickstart/sg_resnet.yaml")], "set": {"map_root": "/maps/one"}}
    path = write_sweep([group], maps={"/maps/ones": {"config": "a.yaml", "input": "images"}})
    with pytest.raises(SystemExit):
        sweep.main([str(path)])
    expected = "sg_resnet: 'maps' does not name its map_root /maps/one; did you mean '/maps/ones'?"
    assert expected in capsys.readouterr().err


def test_the_listed_commands_are_those_of_the_runs_that_are_not_done(write_sweep, tmp_path, monkeypatch, capsys):
    config = str(ROOT / "config/quickstart/phd_resnet.yaml")
    settings = {"lmbda": [0.1, 0.2], "dataset_root": "my photos"}
    guided = {"configs": [str(ROOT / "config/quickstart/sg_resnet.yaml")], "set": {"map_root": str(tmp_path / "maps")}}
    maps = {str(tmp_path / "maps"): {"config": "a.yaml", "input": "images"}}
    path = write_sweep([{"configs": [config], "set": settings}, guided], maps=maps)
    monkeypatch.setattr(Run, "is_done", lambda run: run.lmbda == 0.1)
    sweep.main([str(path), "--list", "--device", "cuda"])
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    args = get_argparser().parse_args(shlex.split(line)[2:])
    assert args.set == ["lmbda=0.2", 'dataset_root="my photos"'] and args.run_dir == tmp_path / "runs/phd_resnet-0.2"
    assert args.resume and args.device == "cuda" and not (tmp_path / "rows.csv").exists()
    assert "1 runs need these maps first" in printed.err and f"--output={tmp_path / 'maps'}" in printed.err
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "manifest.json").touch()
    sweep.main([str(path), "--list"])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_listed_runs_wait_for_those_they_begin_with_and_outdated_ones_begin_anew(write_sweep, tmp_path, capsys):
    first = {"configs": [str(ROOT / "config/quickstart/phd_resnet.yaml")]}
    second = {"configs": [str(ROOT / "config/quickstart/finetune_resnet.yaml")], "after": ["phd_resnet"]}
    path, folder = write_sweep([first, second]), tmp_path / "runs" / "phd_resnet"
    sweep.main([str(path), "--list"])
    printed = capsys.readouterr()
    assert printed.out.count("--run_dir") == printed.out.count("--resume") == 1
    assert printed.err == "# finetune_resnet-phd_resnet begins with the weights of phd_resnet: list it after that run\n"
    sweep.main([str(path), "--list", "--only", "finetune*"])
    assert capsys.readouterr().out == ""
    folder.mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text("another config")
    (folder / "run.json").write_text('{"seed": 0}')
    (folder / "weights.safetensors").touch()
    sweep.main([str(path), "--list"])
    printed = capsys.readouterr()
    assert "--run_dir" in printed.out and "--resume" not in printed.out
    assert "# phd_resnet begins anew: list it again to resume it" in printed.err


def test_the_number_of_jobs_is_positive(write_sweep, capsys):
    with pytest.raises(SystemExit):
        sweep.main([str(write_sweep([])), "--jobs", "0"])
    assert "--jobs: expected at least 1, not 0" in capsys.readouterr().err


def test_a_run_has_one_gpu_or_none(write_sweep, capsys):
    config = str(ROOT / "config/quickstart/phd_resnet.yaml")
    with pytest.raises(SystemExit):
        sweep.main([str(write_sweep([{"configs": [config], "gpus": 2}]))])
    assert "gpus of a group is 2; expected 0 or 1" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_are_made_once_and_a_failed_one_is_listed_after_the_others(write_sweep, tmp_path, capsys):
    write_data_set(tmp_path / "digits", num_train=40, num_val=20)
    settings = {**TINY, "dataset_root": str(tmp_path / "digits")}
    config = str(ROOT / "config/quickstart/teacher_resnet.yaml")
    broken = {**settings, "train.optimizer.kwargs.lr": 1e30, "train.scheduler.kwargs.max_lr": 1e30}
    path = write_sweep([{"configs": [config], "set": broken}, {"configs": [config], "set": settings, "seeds": [0, 1]}])
    runs = read_sweep(path).runs
    assert len(runs) == 3
    with pytest.raises(SystemExit) as stop:
        sweep.main([str(path), "--device", "cpu"])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert "1 of 3 runs failed: teacher_resnet" in captured.err
    assert captured.out.count("| teacher_resnet-seed") == 2
    rows = read_rows(tmp_path / "rows.csv")
    assert [row.seed for row in rows] == [0, 0, 1]
    assert not rows[0].was_run and all(row.images == 20 and row.top1 >= 0 for row in rows[1:])
    assert "1 of 3 runs: not run" in captured.out
    done = [run for run in runs if run.is_done()]
    assert len(done) == 2
    before = [(run.folder / "test.json").stat().st_mtime_ns for run in done]
    sweep.main([str(path), "--device", "cpu", "--only", "teacher_resnet-*"])
    assert [(run.folder / "test.json").stat().st_mtime_ns for run in done] == before


def test_the_pattern_selects_runs_and_unselected_ones_have_rows_too(write_sweep, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr("misc.sweeps.execute.make_run", lambda run, device: made.append(run.name) or True)
    monkeypatch.setattr(Maps, "make", lambda maps, device: made.append(maps.folder.name) or True)
    guided = {"configs": [str(ROOT / "config/quickstart/sg_resnet.yaml")], "set": {"map_root": str(tmp_path / "maps")}}
    plain = {"configs": [str(ROOT / "config/quickstart/phd_resnet.yaml")], "set": {"lmbda": [0.1, 0.2]}}
    path = write_sweep([plain, guided], maps={str(tmp_path / "maps"): {"config": "a.yaml", "input": "images"}})
    sweep.main([str(path), "--only", "phd_*"])
    assert made == ["phd_resnet-0.1", "phd_resnet-0.2"]
    assert [(row.run, row.lmbda, row.was_run) for row in read_rows(tmp_path / "rows.csv")] == [
        ("phd_resnet-0.1", 0.1, False),
        ("phd_resnet-0.2", 0.2, False),
        ("sg_resnet", 0.03, False),
    ]
    assert "3 of 3 runs: not run" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        sweep.main([str(path), "--only", "phd_swin*"])
    assert stop.value.code == 2 and "--only phd_swin* names none of the 3 runs" in capsys.readouterr().err
    made.clear()
    sweep.main([str(path), "--only", "sg*"])
    assert made == ["maps", "sg_resnet"]
