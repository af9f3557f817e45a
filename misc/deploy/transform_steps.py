"""The test's image transform as data: torchvision's steps in a form that a device without torchvision can follow."""

from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import InterpolationMode, v2

from misc.errors import UserError

KNOWN = "Compose of Resize, CenterCrop, ToImage, ToDtype(float32, scale=true) and Normalize"


def transform_steps(transform: Callable) -> list[dict[str, Any]]:
    """Return the steps of a transform from a PIL image to a float32 tensor.

    Args:
        transform: of `torchvision.transforms.v2`.

    Returns:
        JSON values: `{"op": "resize", "size": int or [height, width], "interpolation": name}`,
        `{"op": "center_crop", "height": int, "width": int}`, then `{"op": "scale", "factor": 1 / 255}` and
        `{"op": "normalize", "mean": [...], "std": [...]}`.

    Raises:
        UserError: a transform, or a setting of one, that has no such form.
    """
    if not isinstance(transform, v2.Compose):
        raise _unknown(transform)
    steps, is_tensor = [], False
    for part in transform.transforms:
        if isinstance(part, v2.ToImage):
            is_tensor = True
        elif is_tensor == isinstance(part, v2.ToDtype | v2.Normalize):
            steps.append(_step(part))
        else:
            raise _unknown(part)
    if [step["op"] for step in steps if step["op"] in ("scale", "normalize")] not in (["scale"], ["scale", "normalize"]):
        raise UserError(f"the image transform must scale to [0, 1], then normalise at most once: expected a {KNOWN}")
    return steps


def _step(part: Callable) -> dict[str, Any]:
    if isinstance(part, v2.Resize) and part.max_size is None and part.size is not None:
        size = part.size[0] if len(part.size) == 1 else list(part.size)
        return {"op": "resize", "size": size, "interpolation": InterpolationMode(part.interpolation).value}
    if isinstance(part, v2.CenterCrop):
        height, width = part.size
        return {"op": "center_crop", "height": height, "width": width}
    if isinstance(part, v2.ToDtype) and part.dtype is torch.float32 and part.scale:
        return {"op": "scale", "factor": 1 / 255}
    if isinstance(part, v2.Normalize):
        return {"op": "normalize", "mean": [float(m) for m in part.mean], "std": [float(s) for s in part.std]}
    raise _unknown(part)


def _unknown(part: Callable) -> UserError:
    text = " ".join(str(part).split())
    return UserError(f"the image transform {text} cannot be exported: expected a {KNOWN}, on images in this order")
