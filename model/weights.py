"""Weight files: safetensors, written atomically; a student's file leaves out a frozen tail, which is its teacher's."""

import argparse
import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import safetensors
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from misc.errors import UserError, first_few
from misc.files import write_atomically

SAFE = [argparse.Namespace]  # timm's training script keeps its arguments
COUNTER = ".num_batches_tracked"  # of batch normalisation; torch takes 0 where an old file lacks it
AVERAGED = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the averages


def save_weights(
    model: nn.Module, path: str | Path, tail_digest: str | None = None, half: Sequence[str] = (), **facts: object
) -> None:
    """Write a model's state dict.

    Args:
        model: any module; a student's tail is left out if its digest is still `tail_digest`.
        path: ends in .safetensors.
        tail_digest: `digest(student.tail)` from before any training.
        half: modules whose parameters are stored in float16, half the size; they must hold such values already.
        **facts: provenance (command, accuracy, ...), stored as JSON in the file's metadata.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if tail_digest is not None and digest(model.tail) == tail_digest:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("tail.")}
        facts["tail_sha256"] = tail_digest
    if half:
        parameters = {name for name, _ in model.named_parameters() if name.split(".")[0] in half}
        state = {name: tensor.half() if name in parameters else tensor for name, tensor in state.items()}
    # A single key, as safetensors writes several in random order and equal weights should give equal bytes.
    write_atomically(path, save(state, {"facts": json.dumps(facts)}))


def read_facts(path: str | Path) -> dict:
    """Return the facts given to `save_weights`; {} for other safetensors files.

    Raises:
        UserError: no such file, or not safetensors.
    """
    _check_exists(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("facts", "{}"))
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file") from error


def check_backbone(path: str | Path, name: str) -> None:
    """Check that a student was trained for the backbone called `name`; files that do not say for which pass.

    Raises:
        UserError: it was trained for another one.
    """
    trained_for = _facts(path).get("backbone", name)
    if trained_for != name:
        raise UserError(
            f"{path} was trained for the backbone '{trained_for}', the config's is '{name}': "
            "change the backbone's name, or give the weights of another run"
        )


def read_student(path: str | Path, tail: nn.Module) -> dict[str, Tensor]:
    """Read a student's tensors; if the file has no tail, take those of `tail`.

    Raises:
        UserError: not a weights file, or a student trained for another tail.
    """
    state = read_state_dict(path)
    trained_for = _facts(path).get("tail_sha256")
    if trained_for is not None:
        if trained_for != digest(tail):
            raise UserError(
                f"{path} was trained for a backbone with other weights or another cut: check the backbone's "
                "weights_path and split_idx, or give the weights of another run"
            )
        state.update({f"tail.{name}": tensor for name, tensor in tail.state_dict().items()})
    return state


def _facts(path: str | Path) -> dict:
    """Return what `read_facts` does; {} for other kinds of files."""
    return read_facts(path) if Path(path).suffix == ".safetensors" else {}


def digest(module: nn.Module) -> str:
    """Return a SHA-256 over a module's tensors and their names."""
    sha = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        sha.update(name.encode())
        sha.update(_raw(tensor))
    return sha.hexdigest()


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def load_weights(model: nn.Module, path: str | Path, state: dict[str, Tensor] | None = None) -> None:
    """Load a safetensors file or a state dict into `model`; all keys must match.

    Args:
        model: any module.
        path: the file of the weights.
        state: the tensors, if already read from `path`.

    Raises:
        UserError: no such file, not a weights file, or keys or shapes that differ (the message lists them).
    """
    state = read_state_dict(path) if state is None else state
    try:
        model.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(_misfit(model, path, _differences(model, state))) from error


def check_fit(model: nn.Module, path: str | Path, state: dict[str, Tensor]) -> None:
    """Check names and shapes of a state dict without loading it; arguments and errors are those of `load_weights`."""
    differences = _differences(model, state)
    if differences:
        raise UserError(_misfit(model, path, differences))


def _misfit(model: nn.Module, path: str | Path, differences: str) -> str:
    timm_name = getattr(model, "pretrained_cfg", {}).get("architecture")
    return f"{path} does not fit {timm_name or type(model).__name__}: {differences}"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name with timm's loader, without unpickling objects.

    From a training checkpoint it takes the model's tensors, where there is an exponential moving average (timm's
    `state_dict_ema`, torchvision's `model_ema`) that one's, and removes the prefixes of DistributedDataParallel and
    torch.compile. Floating-point tensors become float32.

    Args:
        path: safetensors, or what `torch.save` wrote: a state dict, or a checkpoint of timm, torchvision or Lightning.

    Raises:
        UserError: no such file, or not one of these.
    """
    path = Path(path)
    _check_exists(path)
    try:
        with torch.serialization.safe_globals(SAFE):
            state = timm.models.load_state_dict(str(path), use_ema=True, weights_only=True)
        state.pop(AVERAGED, None)
        return {name: each.float() if each.is_floating_point() else each for name, each in state.items()}
    except (SafetensorError, RuntimeError, EOFError, AttributeError, ValueError, pickle.UnpicklingError) as error:
        expected = "not a weights file (safetensors, or a state dict of tensors alone)"
        raise UserError(f"{path} is {expected}{_objects_in(path)}") from error


def _check_exists(path: str | Path) -> None:
    if not Path(path).is_file():
        raise UserError(f"no weights at {path}: check the path")


def _objects_in(path: Path) -> str:
    """Return what keeps a file of `torch.save` from being read, or "" for other files."""
    try:
        with torch.serialization.safe_globals(SAFE):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return ""
    return f": it holds {first_few(found)}; save model.state_dict() instead" if found else ""


def of_one_model(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a state dict that belong to `model`, under its names.

    Lightning keeps a network as an attribute of another module, `model.conv1.weight`: if all of the model's names occur
    behind one prefix, the prefix and everything without it are left out. Otherwise the state dict is returned as it is.

    Raises:
        UserError: several such prefixes, of a teacher and a student for example.
    """
    names = [name for name in model.state_dict() if not name.endswith(COUNTER)]
    if all(name in state for name in names):
        return state
    prefixes = [name.removesuffix(names[0]) for name in state if name.endswith(f".{names[0]}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in state for name in names)]
    if len(fitting) > 1:
        raise UserError(f"the weights hold {len(fitting)} networks ({first_few(fitting)}): save one of them alone")
    if not fitting:
        return state
    return {name: state[fitting[0] + name] for name in model.state_dict() if fitting[0] + name in state}


def _differences(model: nn.Module, state: dict[str, Tensor]) -> str:
    wanted = model.state_dict()
    findings = {
        "missing": [key for key in wanted if key not in state and not key.endswith(COUNTER)],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [key for key in wanted if key in state and wanted[key].shape != state[key].shape],
    }
    return "; ".join(f"{len(keys)} {kind} ({first_few(keys)})" for kind, keys in findings.items() if keys)
