"""From a batch of images and labels to a batch of saliency maps, on the device from end to end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_maps.cam_prep.activations import activations, activations_and_gradients
from saliency_maps.cam_prep.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.projection import first_principal_component
from saliency_maps.cam_prep.target_layers import TargetLayer

NO_PREFERENCE = 0.5


class SaliencyMapper:
    """Saliency maps of a teacher, as pytorch-grad-cam draws them.

    Per layer: weighted activations, their sum or first principal component over the channels, ReLU, min-max scaling,
    bilinear resize; then the mean over the layers and min-max scaling again.

    Args:
        model: the teacher, (B, 3, H, W) -> (B, classes). It is put in eval mode and its parameters are frozen.
        layers: target layers of `model`.
        method: a name of `CAM_METHODS`.
        map_size: (height, width) of the maps.
        eigen_smooth: principal component in place of the sum.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[TargetLayer],
        method: str,
        map_size: tuple[int, int],
        eigen_smooth: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.layers = list(layers)
        self.method = CAM_METHODS[method]
        self.map_size = map_size
        self.project = eigen_smooth or self.method.always_projects

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Returns maps, (B, height, width) in [0, 1] and possibly NaN, for images (B, 3, H, W) and labels (B,)."""
        if self.method.uses_gradients:
            layer_activations, gradients = activations_and_gradients(self.model, self.layers, images, labels)
        else:
            layer_activations = activations(self.model, self.layers, images)
            gradients = [None] * len(self.layers)
        with torch.inference_mode():
            maps = [self._layer_map(*pair) for pair in zip(layer_activations, gradients, strict=True)]
            return min_max(torch.stack(maps).mean(dim=0))

    def _layer_map(self, layer_activations: Tensor, gradients: Tensor | None) -> Tensor:
        weighted = self.method.weigh(layer_activations, gradients)
        saliency = first_principal_component(weighted) if self.project else weighted.sum(dim=1)
        saliency = min_max(saliency.relu())[:, None]
        return F.interpolate(saliency, self.map_size, mode="bilinear", align_corners=False)[:, 0]


def min_max(maps: Tensor) -> Tensor:
    """Scales each map of (B, H, W) to [0, 1]; a constant map becomes 0 (pytorch-grad-cam's `scale_cam_image`)."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))


def replace_useless(maps: Tensor) -> Tensor:
    """Returns (B, H, W) with the maps that say nothing, empty or not finite, replaced by "no preference", 0.5."""
    useless = ~maps.isfinite().all(dim=(1, 2)) | (maps == 0).all(dim=(1, 2))
    return maps.masked_fill(useless[:, None, None], NO_PREFERENCE)
