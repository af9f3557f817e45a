"""From a batch of images and labels to a batch of saliency maps, on the device from end to end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_maps.cam_prep.methods.activations import activations, activations_and_gradients, autocast_context
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.methods.clock import Clock
from saliency_maps.cam_prep.methods.guided_backpropagation import guided_backpropagation
from saliency_maps.cam_prep.methods.library import library_maps
from saliency_maps.cam_prep.methods.projection import first_principal_component
from saliency_maps.cam_prep.methods.sensitivity import squared_jacobians
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

NO_PREFERENCE = 0.5


class SaliencyMapper:
    """Saliency maps of a teacher, as pytorch-grad-cam draws them.

    A method of `CAM_METHODS` is computed here. Per layer: weighted activations, their sum or first principal component
    over the channels, ReLU, min-max scaling, bilinear resize; then the mean over the layers and min-max scaling again.
    Any other method is run through pytorch-grad-cam, and its maps are resized.

    Args:
        model: the teacher, (B, 3, H, W) -> (B, classes). It is put in eval mode, and a method of `CAM_METHODS` freezes
            its parameters.
        layers: target layers of `model`.
        name: the method, one of `SaliencyTypes`.
        map_size: (height, width) of the maps.
        eigen_smooth: principal component in place of the sum.
        per_layer: one map for each layer, in place of their mean.
        guided: maps times the guided gradients of the image, whose mean over RGB is scaled to [0, 1]; the product is
            scaled again, as the two are seldom large in the same place.
        autocast: lower precision of the forward pass; None is float32.

    Attributes:
        clock: time spent in "forward", which includes all of the library's work, "backward" and "projection".
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[TargetLayer],
        name: str,
        map_size: tuple[int, int],
        eigen_smooth: bool = False,
        per_layer: bool = False,
        guided: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.method = CAM_METHODS.get(name)
        # The library differentiates down to whatever requires a gradient.
        self.model = model.eval().requires_grad_(self.method is None)
        self.layers = list(layers)
        self.map_size = map_size
        self.eigen_smooth = eigen_smooth
        self.per_layer = per_layer
        self.guided = guided
        self.autocast = autocast
        self.clock = Clock()

    def __call__(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return maps, possibly NaN. Each spans [0, 1]; a constant map is 0.

        Maps of `per_layer` lie in [0, 1] but need not span it, as they are resized after scaling; guided ones span it.

        Args:
            images: (B, 3, H, W), normalised.
            labels: (B,), class indices; None takes the class that the model predicts.

        Returns:
            (B, height, width) or, with `per_layer`, (B, layers, height, width).
        """
        maps = self._layer_maps(images, labels) if self.method else self._library_maps(images, labels)
        if not self.per_layer:
            maps = min_max(maps.mean(dim=1))
        if not self.guided:
            return maps
        guide = self._guide(images, labels)
        if self.per_layer:
            return scaled_channels(maps * guide[:, None])
        return min_max(maps * guide)

    def _layer_maps(self, images: Tensor, labels: Tensor | None) -> Tensor:
        features, weights = self._features_and_weights(images, labels)
        with torch.inference_mode(), self.clock("projection", images.device):
            maps = [self._layer_map(*pair) for pair in zip(features, weights, strict=True)]
            return torch.stack(maps, dim=1)

    def _features_and_weights(
        self, images: Tensor, labels: Tensor | None
    ) -> tuple[list[Tensor], Sequence[Tensor | None]]:
        options = self.autocast, self.clock
        if self.method.uses_gradients:
            return activations_and_gradients(self.model, self.layers, images, labels, *options)
        if self.method.uses_jacobian:
            squared = squared_jacobians(self.model, self.layers, images, *options)
            return squared, squared
        features = activations(self.model, self.layers, images, *options)
        return features, [None] * len(features)

    def _layer_map(self, features: Tensor, weights: Tensor | None) -> Tensor:
        weighted = self.method.weigh(features, weights)
        project = self.eigen_smooth or self.method.always_projects
        saliency = first_principal_component(weighted) if project else weighted.sum(dim=1)
        saliency = min_max(saliency.relu())[:, None]
        return F.interpolate(saliency, self.map_size, mode="bilinear", align_corners=False)[:, 0]

    def _library_maps(self, images: Tensor, labels: Tensor | None) -> Tensor:
        groups = [[layer] for layer in self.layers] if self.per_layer else [self.layers]
        with self.clock("forward", images.device), autocast_context(images, self.autocast):
            maps = [library_maps(self.name, self.model, group, images, labels, self.eigen_smooth) for group in groups]
        return shrunk(torch.stack(maps, dim=1), self.map_size)

    def _guide(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with self.clock("backward", images.device), autocast_context(images, self.autocast):
            gradients = guided_backpropagation(self.model, images, labels)
        with torch.inference_mode():
            return min_max(shrunk(gradients.float(), self.map_size).mean(dim=1))


def min_max(maps: Tensor) -> Tensor:
    """Scale each map of (B, H, W) to [0, 1]; a constant map becomes 0 (pytorch-grad-cam's `scale_cam_image`)."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))


def scaled_channels(maps: Tensor) -> Tensor:
    """Scale each channel of (B, C, H, W) to [0, 1]."""
    return min_max(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])


def shrunk(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) bilinearly to (B, C, *size), with antialiasing where that is smaller."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)


def replace_useless(maps: Tensor) -> Tensor:
    """Replace the maps of (B, H, W) that say nothing, all zero or not finite, by "no preference", 0.5 throughout."""
    useless = ~maps.isfinite().all(dim=(1, 2)) | (maps == 0).all(dim=(1, 2))
    return maps.masked_fill(useless[:, None, None], NO_PREFERENCE)
