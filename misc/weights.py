"""Weights on disk: safetensors, written atomically; a student's frozen tail stays with its teacher."""

import hashlib
import json
from pathlib import Path

import safetensors
from safetensors.torch import save
from torch import Tensor, nn

from misc.atomic import write_atomically
from misc.errors import UserError
from model.backbone import load_weights, read_state_dict
from model.split import SplitClassifier


def save_weights(model: nn.Module, path: str | Path, tail_digest: str | None = None, **facts: object) -> None:
    """Writes a model's state dict.

    Args:
        model: any module; of a SplitClassifier, the tail is left out while it is what `tail_digest` says.
        path: ends in .safetensors.
        tail_digest: `digest(student.tail)` when the student was built, before any training.
        **facts: what a reader should know (command, accuracy, ...); goes into the file's metadata as JSON.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if tail_digest is not None and digest(model.tail) == tail_digest:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("tail.")}
        facts["tail_sha256"] = tail_digest
    # One key: safetensors writes several in random order, and the same weights should be the same bytes.
    write_atomically(path, save(state, {"facts": json.dumps(facts)}))


def read_facts(path: str | Path) -> dict:
    """Returns the facts that `save_weights` was given; {} for files of another origin."""
    with safetensors.safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("facts", "{}"))


def load_into(model: nn.Module, path: str | Path) -> None:
    """Loads weights strictly; a student's file without a tail takes the tail that its backbone brought.

    Raises:
        UserError: keys or shapes that do not fit (which), or a student that was trained for another tail.
    """
    load_weights(model, path, read_student(path, model.tail) if isinstance(model, SplitClassifier) else None)


def read_student(path: str | Path, tail: nn.Module) -> dict[str, Tensor]:
    """Reads a student's tensors; those of its tail, where the file has none, are taken from `tail`.

    Raises:
        UserError: not a weights file, or a student that was trained for another tail.
    """
    state = read_state_dict(path)
    trained_for = read_facts(path).get("tail_sha256") if Path(path).suffix == ".safetensors" else None
    if trained_for is not None:
        if trained_for != digest(tail):
            raise UserError(f"{path} was trained for a backbone with other weights: check the backbone's weights_path")
        state.update({f"tail.{name}": tensor for name, tensor in tail.state_dict().items()})
    return state


def digest(module: nn.Module) -> str:
    """Returns a SHA-256 over a module's tensors, names included."""
    sha = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        sha.update(name.encode())
        sha.update(_raw(tensor))
    return sha.hexdigest()


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
