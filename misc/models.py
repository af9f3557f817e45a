"""Models from a config's entries, and the student of a run that was tested."""

from pathlib import Path

import torch
from torch import nn
from torchdistill.models.registry import get_model

from misc.config import load_config
from misc.errors import UserError
from misc.weights import load_into
from model.split import SplitClassifier


def build_model(name: str, entry: dict, device: torch.device) -> nn.Module:
    """Builds a registered model; channels last is what convolutions are fastest in, on CPU and CUDA alike."""
    try:
        model = get_model(entry["key"], **entry.get("kwargs", {}))
    except TypeError as error:
        raise UserError(f"models.{name}: {error}") from error
    return model.to(device, memory_format=torch.channels_last)


def load_student(folder: Path, device: torch.device) -> tuple[SplitClassifier, dict]:
    """Returns the student of a run folder, with its weights and the coder's tables, and the run's config.

    Raises:
        UserError: a folder without config or weights, a run without a student, or weights that do not fit.
    """
    config = load_config(folder / "config.resolved.yaml", mode="test").data
    name = "student_model" if "student_model" in config["models"] else "model"
    entry = config["models"][name]
    entry.get("kwargs", {}).pop("trained_parts", None)  # they would be overwritten, and their file may be gone
    student = build_model(name, entry, device)
    if not isinstance(student, SplitClassifier):
        raise UserError(f"{folder} did not train a split classifier")
    load_into(student, folder / "weights.safetensors")
    student.update()
    return student.eval(), config
