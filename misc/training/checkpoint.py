"""Where a training stands, on disk: whole or not there, with the one before it, and known to be undamaged."""

import hashlib
import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from misc.files import write_atomically
from misc.training.run_folder import CONFIG, check_resumable

CHECKPOINT = "checkpoint.pt"
NAMES = ("checkpoint.new.pt", CHECKPOINT, "checkpoint.previous.pt")  # from the newest
DIGEST = hashlib.sha256().digest_size


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint; the one before it stays until this one is whole, and one longer.

    Args:
        run_dir: the run's folder.
        state: tensors and plain values, in dicts, lists and tuples.

    Raises:
        UserError: no room, or no right to write; the last checkpoint is still there.
    """
    new, current, previous = (run_dir / name for name in NAMES)
    body = io.BytesIO()
    torch.save(state, body)
    content = body.getvalue()
    try:
        write_atomically(new, hashlib.sha256(content).digest() + content)
        if current.exists():
            os.replace(current, previous)
        os.replace(new, current)
    except OSError as error:
        kept = "the last one is whole: make room and go on with --resume"
        raise UserError(f"no checkpoint could be written in {run_dir} ({error.strerror}); {kept}") from error


def read_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Returns the newest checkpoint that is undamaged, None where there is none; prints a line for each damaged one.

    Nothing in the file is executed (torch's weights_only).

    Raises:
        UserError: there are checkpoints, but every one is damaged; or one that is not ours.
    """
    there = [run_dir / name for name in NAMES if (run_dir / name).is_file()]
    for path in there:
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
            return _loaded(path, content[DIGEST:])
        print(f"{path} is damaged: the one before it is tried", flush=True)
    if there:
        raise UserError(f"every checkpoint in {run_dir} is damaged: train anew with --skip_ckpt, without --resume")
    return None


def _loaded(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors and plain values: it is none of our checkpoints") from error


def remove_checkpoints(run_dir: Path) -> None:
    """Removes what a finished run does not need."""
    for name in NAMES:
        (run_dir / name).unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Returns the states of all random generators that a training may draw from in this process."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    # NumPy's array as a tensor, which is all that is read back without unpickling.
    numpy = (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back to where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


def find_checkpoint(run_dir: Path, resolved_config: str, seed: int, ranks: Ranks) -> dict[str, Any] | None:
    """Returns where a killed run of this config and seed stands; None where there is none, or it has ended."""
    if (run_dir / CONFIG).is_file():
        check_resumable(run_dir, resolved_config, seed)
    checkpoint = read_checkpoint(run_dir)
    processes = ranks.world_size if checkpoint is None else 1 + len(checkpoint.get("other_ranks", ()))
    if processes != ranks.world_size:
        numbers = f"the run has {processes}, now there are {ranks.world_size}"
        raise UserError(f"--resume goes on with the same number of processes only: {numbers}")
    return checkpoint


def from_where(checkpoint: dict[str, Any] | None) -> str:
    """Says where a run goes on."""
    if checkpoint is None:
        return ""
    at = checkpoint["at"]
    return f", on from stage {at['stage']}, epoch {at['epoch']}, step {at['steps'] + 1}"
