"""Checkpoints: complete or absent, the previous one kept, damage detected, nothing executed."""

import hashlib
import os
import random
from dataclasses import asdict

import numpy as np
import pytest
import torch

from misc.errors import UserError
from misc.training import checkpoint
from misc.training.checkpoint import (
    NAMES,
    Progress,
    describe_resume_point,
    random_state,
    read_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    set_random_state,
)


def test_the_newest_is_read_and_the_one_before_it_kept(tmp_path):
    assert read_checkpoint(tmp_path) is None
    for number in range(3):
        save_checkpoint(tmp_path, {"number": number, "weights": torch.full((2,), number)})
    assert read_checkpoint(tmp_path)["number"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES[1:])
    (tmp_path / NAMES[1]).unlink()
    assert torch.equal(read_checkpoint(tmp_path)["weights"], torch.ones(2, dtype=torch.int64))
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_torch_opens_the_file(tmp_path):
    save_checkpoint(tmp_path, {"weights": torch.ones(3)})
    assert torch.equal(torch.load(tmp_path / NAMES[1], weights_only=True)["weights"], torch.ones(3))


def test_one_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    torch.save({"at": {"stage": 1}}, tmp_path / "archive.pt")
    archive = (tmp_path / "archive.pt").read_bytes()
    (tmp_path / NAMES[1]).write_bytes(hashlib.sha256(archive).digest() + archive)
    with pytest.raises(UserError, match=r"checkpoint.pt was written by an earlier version: finish the run with that"):
        read_checkpoint(tmp_path)


def test_progress_counts_steps_epochs_and_stages():
    progress = Progress()
    for seconds, rate in ((1.0, 2.0), (3.0, 4.0)):
        progress.add_step({"loss": 1.0, "rate": rate}, seconds)
    assert progress.mean_losses() == {"loss": 1.0, "rate": 3.0} and progress.epoch_seconds == 3
    assert progress.next_epoch() == Progress(epoch=2, total_steps=2, history_rows=1)
    assert progress.next_epoch().next_stage() == Progress(stage=2, total_steps=2, history_rows=2)
    assert describe_resume_point({"progress": asdict(progress)}) == "stage 1, epoch 1, step 3"
    assert Progress(**asdict(progress)) == progress


@pytest.mark.parametrize("position", [0, 40, 200, -1])
def test_a_damaged_one_is_named_and_the_one_before_it_used(tmp_path, capsys, position):
    for number in range(2):
        save_checkpoint(tmp_path, {"number": number, "weights": torch.zeros(100)})
    path = tmp_path / NAMES[1]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert read_checkpoint(tmp_path)["number"] == 0
    assert capsys.readouterr().out == f"{path} is damaged: trying the previous checkpoint\n"
    (tmp_path / NAMES[2]).write_bytes(b"")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        read_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_last_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"number": 0})

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(UserError, match=r"No space left on device.* repeat the command with --resume"):
        save_checkpoint(tmp_path, {"number": 1})
    assert read_checkpoint(tmp_path) == {"number": 0}


@pytest.mark.parametrize("step", [0, 1])
def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch, step):
    for number in range(2):
        save_checkpoint(tmp_path, {"number": number})
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(source)
        if len(calls) == step + 2:  # the first is that of the atomic write
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, {"number": 2})
    assert read_checkpoint(tmp_path) == {"number": 2}
    save_checkpoint(tmp_path, {"number": 3})
    assert read_checkpoint(tmp_path) == {"number": 3}


class Planted:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_planted_object_is_not_executed(tmp_path):
    torch.save({"x": Planted(str(tmp_path / "run"))}, tmp_path / "planted.pt")
    body = (tmp_path / "planted.pt").read_bytes()
    (tmp_path / NAMES[1]).write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        read_checkpoint(tmp_path)
    assert not (tmp_path / "run").exists()


def test_random_states_come_back_from_the_file(tmp_path):
    def draw() -> list:
        return [torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(), random.random()]

    draw()
    np.random.randn()  # NumPy keeps the second of a pair
    save_checkpoint(tmp_path, random_state())
    first = draw()
    assert draw() != first
    set_random_state(read_checkpoint(tmp_path))
    assert draw() == first
