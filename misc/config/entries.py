"""Models from a config's entries, and the student of a run that was tested."""

from collections.abc import Callable

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchdistill.models.registry import get_model

from misc.config.load import Config
from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError


def build_model(name: str, entry: dict, device: torch.device) -> nn.Module:
    """Builds a registered model; channels last is what convolutions are fastest in, on CPU and CUDA alike."""
    try:
        model = get_model(entry["key"], **entry.get("kwargs", {}))
    except TypeError as error:
        raise UserError(f"models.{name}: {error}") from error
    return model.to(device, memory_format=torch.channels_last)


def check_teacher(entry: dict | None) -> None:
    """Refuses a teacher with random weights."""
    if entry is None:
        return
    kwargs = entry.get("kwargs", {})
    if not (kwargs.get("weights_path") or kwargs.get("pretrained")):
        raise UserError("models.teacher_model is untrained: give its weights_path, or pretrained: true")


def trained_entry(entries: dict) -> dict:
    """Returns the config's student_model or, where a model is trained alone, its model."""
    if ("model" in entries) == ("student_model" in entries):
        raise UserError("models must name either student_model (with teacher_model) or model: it names both or neither")
    return entries.get("student_model") or entries["model"]


def trained_model(models: dict[str, nn.Module]) -> nn.Module:
    return models["student_model"] if "student_model" in models else models["model"]


def student_path(config: Config) -> str:
    """Returns where in the config the student is.

    Raises:
        UserError: it has none.
    """
    for path in ("models.student_model", "models.model"):
        if config.has(path) and config.construct(f"{path}.key") == "split_classifier":
            return path
    raise UserError("the config has no split classifier: give the config of a student")


def image_transform(config: Config) -> Callable[[Image], Tensor]:
    """Returns what the config's test does to an RGB image, without building its data set."""
    dataset = config.construct("test.test_data_loader.dataset_id")
    return config.construct(f"datasets.{dataset}.init.kwargs.transform")


def images_of_test(config: dict) -> ImageFolder:
    """Returns the data set on which the config tests."""
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    if not isinstance(images, ImageFolder) or images.transform is None:
        raise UserError("the config's test data set must be an ImageFolder with a transform: codecs need image files")
    return images
