"""What the server reports: a ranking of classes, and features as NumPy files."""

import io

import numpy as np
from torch import Tensor

NUM_CLASSES = 5


def ranking(logits: Tensor) -> str:
    """Return the five most probable classes with their probabilities in percent, from logits (num_classes,)."""
    probabilities, classes = logits.float().softmax(0).topk(min(NUM_CLASSES, len(logits)))
    pairs = zip(classes.tolist(), probabilities.tolist(), strict=True)
    return ", ".join(f"class {number} {probability:.1%}" for number, probability in pairs)


def npy(tensor: Tensor) -> bytes:
    """Return the tensor as the content of a NumPy file of float32."""
    file = io.BytesIO()
    np.save(file, tensor.float().cpu().numpy())
    return file.getvalue()
