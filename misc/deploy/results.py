"""What the server reports: a ranking of classes, and features as NumPy files."""

import io
from collections.abc import Sequence

import numpy as np
from torch import Tensor

NUM_CLASSES = 5


def ranking(logits: Tensor, names: Sequence[str] | None = None) -> str:
    """Return the five most probable classes with their probabilities in percent.

    Args:
        logits: (num_classes,).
        names: of the classes, by index; without them, classes are called "class" and their index.
    """
    probabilities, classes = logits.float().softmax(0).topk(min(NUM_CLASSES, len(logits)))
    called = [names[number] if names else f"class {number}" for number in classes.tolist()]
    return ", ".join(f"{name} {value:.1%}" for name, value in zip(called, probabilities.tolist(), strict=True))


def npy(tensor: Tensor) -> bytes:
    """Return the tensor as the content of a NumPy file of float32."""
    file = io.BytesIO()
    np.save(file, tensor.float().cpu().numpy())
    return file.getvalue()
