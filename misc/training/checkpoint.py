"""Atomic, checksummed checkpoints; the previous one is kept as a fallback.

A checkpoint is what `torch.save` writes, followed by its SHA-256 digest: bytes behind the archive do not disturb
`torch.load`, which opens the file as it is.
"""

import hashlib
import io
import os
import pickle
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from misc.files import write_atomically
from misc.training.run_folder import CONFIG, check_resumable

CHECKPOINT = "checkpoint.pt"
NAMES = ("checkpoint.new.pt", CHECKPOINT, "checkpoint.previous.pt")  # newest first
DIGEST_SIZE = hashlib.sha256().digest_size


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        stage: the current stage, from 1.
        epoch: the current epoch of the stage, from 1.
        epoch_steps: steps taken in this epoch.
        epoch_seconds: time that they took.
        loss_totals: sums of the loss and its terms over them.
        total_steps: steps taken in the whole run.
        history_rows: rows written to the run's history, one per finished epoch.
    """

    stage: int = 1
    epoch: int = 1
    epoch_steps: int = 0
    epoch_seconds: float = 0.0
    loss_totals: dict[str, float] = field(default_factory=dict)
    total_steps: int = 0
    history_rows: int = 0

    def add_step(self, losses: dict[str, float], epoch_seconds: float) -> None:
        """Count a step, with the loss and its terms."""
        self.epoch_steps += 1
        self.total_steps += 1
        self.epoch_seconds = epoch_seconds
        self.loss_totals = {name: self.loss_totals.get(name, 0.0) + value for name, value in losses.items()}

    def mean_losses(self) -> dict[str, float]:
        """Return the means of the loss and its terms over the epoch's steps."""
        return {name: total / self.epoch_steps for name, total in self.loss_totals.items()}

    def next_epoch(self) -> "Progress":
        """Return the beginning of the next epoch of this stage."""
        fresh = {"epoch_steps": 0, "epoch_seconds": 0.0, "loss_totals": {}}
        return replace(self, epoch=self.epoch + 1, history_rows=self.history_rows + 1, **fresh)

    def next_stage(self) -> "Progress":
        """Return the beginning of the next stage."""
        return replace(self.next_epoch(), stage=self.stage + 1, epoch=1)


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; its predecessor is kept until the next call.

    Args:
        run_dir: the run's folder.
        state: tensors and plain values, in dicts, lists and tuples.

    Raises:
        UserError: no space left or no permission to write; the last checkpoint is still there.
    """
    new, current, previous = (run_dir / name for name in NAMES)
    archive = io.BytesIO()
    torch.save(state, archive)
    content = archive.getvalue()
    try:
        write_atomically(new, content + hashlib.sha256(content).digest())
        if current.exists():
            os.replace(current, previous)
        os.replace(new, current)
    except OSError as error:
        remedy = "the last one is intact: free some space and repeat the command with --resume"
        raise UserError(f"cannot write a checkpoint in {run_dir} ({error.strerror}); {remedy}") from error


def read_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint, or None if there is none; print a line for each damaged one.

    Nothing in the file is executed (torch's weights_only).

    Raises:
        UserError: every checkpoint is damaged, or one was not written by this program or by an earlier version of it.
    """
    paths = [run_dir / name for name in NAMES if (run_dir / name).is_file()]
    for path in paths:
        content = path.read_bytes()
        if hashlib.sha256(content[:-DIGEST_SIZE]).digest() == content[-DIGEST_SIZE:]:
            return _load(path)
        if hashlib.sha256(content[DIGEST_SIZE:]).digest() == content[:DIGEST_SIZE]:  # the digest used to come first
            raise UserError(
                f"{path} was written by an earlier version: finish the run with that version, "
                "or train anew with --skip_ckpt, without --resume"
            )
        print(f"{path} is damaged: trying the previous checkpoint", flush=True)
    if paths:
        raise UserError(f"every checkpoint in {run_dir} is damaged: train anew with --skip_ckpt, without --resume")
    return None


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors and plain values: not a checkpoint of this program") from error


def remove_checkpoints(run_dir: Path) -> None:
    """Remove all checkpoints: a finished run needs none."""
    for name in NAMES:
        (run_dir / name).unlink(missing_ok=True)


def find_checkpoint(run_dir: Path, resolved_config: str, seed: int, ranks: Ranks) -> dict[str, Any] | None:
    """Return the checkpoint from which a run can be resumed, or None if it has not begun or has ended.

    Raises:
        UserError: the run has another config, seed or number of processes, or `read_checkpoint` fails.
    """
    if (run_dir / CONFIG).is_file():
        check_resumable(run_dir, resolved_config, seed)
    checkpoint = read_checkpoint(run_dir)
    processes = ranks.world_size if checkpoint is None else len(checkpoint["random_states"])
    if processes != ranks.world_size:
        numbers = f"the run has {processes}, now there are {ranks.world_size}"
        raise UserError(f"--resume needs the same number of processes: {numbers}")
    return checkpoint


def describe_resume_point(checkpoint: dict[str, Any]) -> str:
    """Return the stage, epoch and step with which a resumed run continues."""
    progress = Progress(**checkpoint["progress"])
    return f"stage {progress.stage}, epoch {progress.epoch}, step {progress.epoch_steps + 1}"


def random_state() -> dict[str, Any]:
    """Return the states of all random generators of this process that training may draw from."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    # NumPy's array as a tensor, as torch's weights_only refuses arrays.
    numpy = (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
