"""Pictures of saliency maps."""

import io

import matplotlib
import numpy as np
from PIL import Image

from saliency_maps.analysis.scores import resize_map

OVERLAY = 0.6  # opacity of the map


def in_colour(saliency: np.ndarray) -> Image.Image:
    """Draw a map, (h, w) in [0, 1], one pixel per value: dark blue 0, yellow 1."""
    colours = matplotlib.colormaps["viridis"](saliency)[..., :3]
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def overlay(image: Image.Image, saliency: np.ndarray) -> Image.Image:
    """Draw a map, (h, w) in [0, 1], in colour over the grey image, at the image's size."""
    grey = image.convert("L").convert("RGB")
    return Image.blend(grey, in_colour(resize_map(saliency, (image.height, image.width))), OVERLAY)


def png(image: Image.Image) -> bytes:
    """Return the picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
