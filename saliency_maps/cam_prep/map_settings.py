"""What maps depend on, and where they come from: settings.json and the provenance in the manifest."""

import argparse
import importlib.metadata
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from misc.datasets.class_indices import digest
from misc.files import file_sha256
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.methods.target_layers import TargetLayer
from saliency_maps.cam_prep.teacher import InputFormat, Teacher


def map_settings(
    args: argparse.Namespace,
    teacher: Teacher,
    layers: Sequence[TargetLayer],
    image_format: InputFormat,
    indices: Mapping[str, int] | None,
    dataset_sha256: str,
) -> dict[str, Any]:
    """Return everything that a map depends on and how it is stored, in JSON's types.

    Args:
        args: the command line of `cam_map_generation.py`.
        teacher: the teacher.
        layers: its target layers.
        image_format: of the images that it is given.
        indices: its class index of each class folder; None where labels play no part.
        dataset_sha256: see `dataset_identity`.
    """
    # Imported here since it takes seconds, which a mistake in the arguments should not wait for.
    from model.weights import digest as model_digest

    side = args.target_dim or 28
    settings = {
        "model": teacher.name,
        "model_kwargs": teacher.kwargs,
        "model_sha256": model_digest(teacher.model),
        "target": args.target,
        "class_indices_sha256": digest(indices) if indices else None,
        "saliency_type": args.saliency_type,
        "layers": [layer.name for layer in layers],
        "multires": args.multires,
        "eigen_smooth": args.eigen_smooth,
        "guided_backprop": args.guided_backprop,
        "autocast": args.autocast,
        "map_size": [side, side] if args.patch_cam else list(image_format.size),
        "input_size": list(image_format.size),
        "mean": list(image_format.mean),
        "std": list(image_format.std),
        "format": args.format,
        "dtype": args.dtype,
        "dataset_sha256": dataset_sha256,
    }
    if args.saliency_type not in CAM_METHODS:  # an upgrade of the library must not mix its maps with earlier ones
        settings["implementation"] = f"grad-cam {importlib.metadata.version('grad-cam')}"
    return json.loads(json.dumps(settings, default=str))


def provenance(args: argparse.Namespace, teacher: Teacher, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what it takes to make the maps again, for the manifest."""
    path = teacher.weights_path
    return {
        "weights_path": path,
        "weights_sha256": file_sha256(path) if path else None,
        "flags": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "command": shlex.join(["python", "saliency_maps/cam_prep/cam_map_generation.py", *arguments]),
    }
