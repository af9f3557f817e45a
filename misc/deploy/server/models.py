"""The models of a server: loading, warming up, and what clients are told about them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from misc.config.entries import image_transform
from misc.config.load import Config
from misc.deploy.class_names import class_names, folder_of_test
from misc.deploy.edge_client import VERSIONS
from misc.deploy.edge_directory import CODER, DESCRIPTION, ENCODER
from misc.deploy.load import load_edge, load_server
from misc.errors import UserError
from model.halves import ServerHalf

EDGE_FILES = (DESCRIPTION, ENCODER, CODER)
MAX_EXAMPLES = 8


class ModelInfo(NamedTuple):
    """What clients may know of a model.

    Attributes:
        fingerprint: of its streams, 8 hexadecimal digits.
        config: path of its config.
        num_classes: the width of its classifier.
        class_names: by index; None if they are not known.
        edge: folder of its exported encoder; None if there is none.
        examples: images of its test data set, one per class; empty if they are not shown, or not on disk.
    """

    fingerprint: str
    config: str
    num_classes: int
    class_names: list[str] | None
    edge: Path | None
    examples: list[Path]

    def name_of(self, index: int) -> str:
        """Return a class's name, or "class 3" where none is known."""
        return self.class_names[index] if self.class_names else f"class {index}"


class ServedModel(NamedTuple):
    """A model that is ready."""

    info: ModelInfo
    half: ServerHalf


def load_model(
    config: Config, path: str, weights: Path, device: torch.device, with_examples: bool = False
) -> ServedModel:
    """Load the server half of a student in channels last, and decode one stream with it.

    The first pass is slow: PyTorch chooses its kernels in it. The stream is of a black image; its encoder is dropped.

    Args:
        config: the student's.
        path: of the config, for clients.
        weights: the student's.
        device: where the model runs.
        with_examples: whether images of its test data set are shown to everybody.

    Raises:
        UserError: weights that do not fit.
    """
    half = load_server(config, weights).to(device, memory_format=torch.channels_last)
    x = image_transform(config)(Image.new("RGB", (256, 256)))
    num_classes = half.decode(load_edge(config, weights).encode(x[None])).shape[1]
    names = class_names(config, num_classes)
    examples = _examples(config) if with_examples else []
    info = ModelInfo(half.fingerprint.hex(), path, num_classes, names, None, examples)
    return ServedModel(info, half)


def check_distinct(infos: Sequence[ModelInfo]) -> None:
    """Refuse models whose streams cannot be told apart.

    Raises:
        UserError: two with the same fingerprint.
    """
    seen: dict[str, str] = {}
    for info in infos:
        if info.fingerprint in seen:
            pair = f"{seen[info.fingerprint]} and {info.config}"
            raise UserError(f"{pair} have the same fingerprint {info.fingerprint}: serve one of them")
        seen[info.fingerprint] = info.config


def with_edges(infos: Sequence[ModelInfo], folders: Sequence[Path]) -> list[ModelInfo]:
    """Return the models with their exported encoders.

    Args:
        infos: the models.
        folders: what scripts/export.py wrote.

    Raises:
        UserError: a folder that is none, or of no served model, or the second of a model.
    """
    edges: dict[str, Path] = {}
    for folder in folders:
        fingerprint = _fingerprint_of_export(folder)
        if fingerprint not in {info.fingerprint for info in infos}:
            raise UserError(f"--edge {folder} is of model {fingerprint}, which is not served")
        if fingerprint in edges:
            raise UserError(f"--edge {folder} and {edges[fingerprint]} are of one model: give one of them")
        edges[fingerprint] = folder
    return [info._replace(edge=edges.get(info.fingerprint)) for info in infos]


def _fingerprint_of_export(folder: Path) -> str:
    missing = next((name for name in (DESCRIPTION, ENCODER) if not (folder / name).is_file()), None)
    if missing is not None:
        raise UserError(f"--edge {folder} has no {missing}: expected a folder that scripts/export.py wrote")
    try:
        edge = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version, fingerprint = edge["format"], str(edge["fingerprint"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"--edge {folder}: {DESCRIPTION} cannot be read: export it again") from error
    if version not in {versions.directory for versions in VERSIONS}:
        readable = " or ".join(str(versions.directory) for versions in VERSIONS)
        raise UserError(f"--edge {folder} is of format {version}, not {readable}: export it again")
    return fingerprint


def _examples(config: Config) -> list[Path]:
    """Return the first image of up to eight classes, spread over all of them."""
    root = folder_of_test(config)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root else []
    folders = folders[:: max(1, len(folders) // MAX_EXAMPLES)][:MAX_EXAMPLES]
    images = (sorted(path for path in folder.iterdir() if _is_image(path)) for folder in folders)
    return [found[0] for found in images if found]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS
