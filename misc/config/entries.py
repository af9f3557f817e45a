"""What a config names: its models, the trained one among them, and the images and transform of its test."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchdistill.models.registry import get_model

from misc.config.load import Config
from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from model.classifier import num_classes_of

T = TypeVar("T")


def build_model(name: str, entry: dict, device: torch.device) -> nn.Module:
    """Build a registered model in channels last, the fastest layout for convolutions on CPU and CUDA.

    Args:
        name: of the entry in the config's `models`, for errors.
        entry: its `key` and `kwargs`.
        device: where to put the model.

    Raises:
        UserError: arguments that the model does not take.
    """
    try:
        model = get_model(entry["key"], **entry.get("kwargs", {}))
    except TypeError as error:
        raise UserError(f"models.{name}: {error}") from error
    return model.to(device, memory_format=torch.channels_last)


def trained_name(names: Iterable[str]) -> str:
    """Return which of a config's models is trained and tested: student_model or, without a teacher, model.

    Raises:
        UserError: both are there, or neither.
    """
    found = {"student_model", "model"}.intersection(names)
    if len(found) != 1:
        raise UserError("models must name either student_model (with teacher_model) or model: it names both or neither")
    return found.pop()


def trained_model(models: Mapping[str, T]) -> T:
    """Return the trained one of models, or of their entries, by name; errors are those of `trained_name`."""
    return models[trained_name(models)]


def without_trained_parts(entry: dict) -> dict:
    """Return a model's entry without trained_parts: loading them is pointless before weights that overwrite them."""
    kwargs = {key: value for key, value in entry.get("kwargs", {}).items() if key != "trained_parts"}
    return {**entry, "kwargs": kwargs}


def check_teacher(entry: dict | None) -> None:
    """Refuse a teacher with random weights.

    Raises:
        UserError: the teacher's entry names no weights.
    """
    if entry is None:
        return
    kwargs = entry.get("kwargs", {})
    if not (kwargs.get("weights_path") or kwargs.get("pretrained")):
        raise UserError("models.teacher_model is untrained: give its weights_path, or pretrained: true")


def student_path(config: Config) -> str:
    """Return the path of the student's entry in a config.

    Raises:
        UserError: the config has no student.
    """
    names = ("student_model", "model")
    path = f"models.{trained_name(name for name in names if config.has(f'models.{name}'))}"
    if config.construct(f"{path}.key") != "split_classifier":
        raise UserError("the config has no split classifier: give the config of a student")
    return path


def num_classes(config: Config) -> int:
    """Return the number of classes of a student's classifier; raises what `num_classes_of` raises."""
    return num_classes_of(config.construct(f"{student_path(config)}.kwargs.backbone"))


def image_transform(config: Config) -> Callable[[Image], Tensor]:
    """Return what the config's test does to an RGB image, without building its data set."""
    dataset = config.construct("test.test_data_loader.dataset_id")
    return config.construct(f"datasets.{dataset}.init.kwargs.transform")


def images_of_test(config: dict) -> ImageFolder:
    """Return the data set on which the config tests.

    Raises:
        UserError: it does not give image files and the transform to apply to them.
    """
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    if not isinstance(images, ImageFolder) or images.transform is None:
        raise UserError("the config's test data set must be an ImageFolder with a transform: codecs need image files")
    return images
