"""Weights on disk: safetensors, written atomically; a student's frozen tail stays with its teacher."""

import hashlib
import json
import pickle
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from misc.errors import UserError
from misc.files import write_atomically


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


def load_weights(model: nn.Module, path: str | Path, state: dict[str, Tensor] | None = None) -> None:
    """Loads a safetensors file or a state dict into `model`; every key must fit.

    Args:
        model: any module.
        path: where the weights are from.
        state: the tensors, where they have been read from `path` already.

    Raises:
        UserError: no such file, not a weights file, or keys or shapes that differ (which).
    """
    state = read_state_dict(path) if state is None else state
    try:
        model.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not fit {type(model).__name__}: {_differences(model, state)}") from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads tensors by name, unpickling nothing; a training checkpoint gives its model's tensors."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights at {path}: check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content.get("model", content)
    except (SafetensorError, RuntimeError, EOFError, AttributeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is not a weights file (safetensors, or a state dict of tensors alone)") from error


def _differences(model: nn.Module, state: dict[str, Tensor]) -> str:
    wanted = model.state_dict()
    findings = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [key for key in wanted if key in state and wanted[key].shape != state[key].shape],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in findings.items()
        if keys
    )
