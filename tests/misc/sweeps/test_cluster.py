"""A sweep on Ray: two runs at a time, and a killed worker."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from misc.datasets.digits import write_data_set
from misc.errors import UserError
from misc.files import ROOT
from misc.sweeps.cluster import ray_cluster
from misc.sweeps.plan import read_sweep
from misc.training.checkpoint import CHECKPOINT
from scripts import sweep

CONFIG = str(ROOT / "config/quickstart/phd_resnet.yaml")


def test_a_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--ray needs Ray: pip install -r"), ray_cluster("local"):
        pass


def worker_of(folder: Path) -> int:
    """Return the process whose child trains in a run folder; the training's own children have the same command."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if str(folder).encode() in (process / "cmdline").read_bytes().split(b"\0"):
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    (worker,) = set(parents.values()) - set(parents)
    return worker


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_resumed_beside_another(write_sweep, tmp_path, capsys):
    pytest.importorskip("ray", reason="misc/deploy/requirements-ray.txt is not installed")
    write_data_set(tmp_path / "digits", num_train=40, num_val=20)
    settings = {"dataset_root": str(tmp_path / "digits"), "train.stage1.num_epochs": 4, "batch_size": 20}
    path = write_sweep([{"configs": [CONFIG], "set": settings, "seeds": [0, 1]}])
    first, second = read_sweep(path).runs

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (first.folder / CHECKPOINT).is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(worker_of(first.folder), signal.SIGKILL)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    sweep.main([str(path), "--device", "cpu", "--ray", "local"])
    killer.join()
    assert first.is_done() and second.is_done()
    assert "resumed at stage 1" in (first.folder.parent / f"{first.folder.name}.log").read_text()
    assert capsys.readouterr().out.count("| phd_resnet-seed") == 2
