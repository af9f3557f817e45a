"""From a batch of images and labels to a batch of saliency maps, on the device from end to end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_maps.cam_prep.methods.activations import activations, activations_and_gradients, autocast_context
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS, FULL_GRAD
from saliency_maps.cam_prep.methods.clock import Clock
from saliency_maps.cam_prep.methods.input_gradients import full_gradients, guided_backpropagation, shrunk
from saliency_maps.cam_prep.methods.projection import first_principal_component
from saliency_maps.cam_prep.methods.sensitivity import squared_jacobians
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

NO_PREFERENCE = 0.5
FULL_GRAD_REDUCTION = 8  # of the sides, before FullGrad's parts are projected


class SaliencyMapper:
    """Saliency maps of a teacher, as pytorch-grad-cam draws them.

    Per layer: weighted activations, their sum or first principal component over the channels, ReLU, min-max scaling,
    bilinear resize; then the mean over the layers and min-max scaling again. FullGrad has no target layers: it sums
    what image and biases contribute.

    Args:
        model: the teacher, (B, 3, H, W) -> (B, classes). It is put in eval mode and its parameters are frozen.
        layers: target layers of `model`.
        method: one of `SALIENCY_TYPES`.
        map_size: (height, width) of the maps.
        eigen_smooth: principal component in place of the sum.
        per_layer: one map for each layer, in place of their mean.
        guided: maps times the guided gradients of the image, whose mean over RGB is scaled to [0, 1]; the product is
            scaled again, as the two are seldom large in the same place.
        autocast: lower precision of the forward pass; None is float32.

    Attributes:
        seconds: time spent in "forward", "backward" and "projection" so far.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[TargetLayer],
        method: str,
        map_size: tuple[int, int],
        eigen_smooth: bool = False,
        per_layer: bool = False,
        guided: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.layers = list(layers)
        self.method = CAM_METHODS.get(method)
        self.map_size = map_size
        self.project = eigen_smooth or (self.method is not None and self.method.always_projects)
        self.per_layer = per_layer
        self.guided = guided
        self.autocast = autocast
        self.clock = Clock()
        if self.method is None and method != FULL_GRAD:
            raise ValueError(f"no method {method}")

    @property
    def seconds(self) -> dict[str, float]:
        return self.clock.seconds

    def __call__(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Returns maps, possibly NaN. Each spans [0, 1], but a constant one is 0.

        Those of `per_layer` lie in [0, 1] and may end short of it, as they are resized after they are scaled; guided
        ones span it.

        Args:
            images: (B, 3, H, W), normalised.
            labels: (B,), class indices; None takes the class that the model predicts.

        Returns:
            (B, height, width) or, `per_layer`, (B, layers, height, width).
        """
        maps = self._full_grad(images, labels)[:, None] if self.method is None else self._layer_maps(images, labels)
        if not self.per_layer:
            maps = min_max(maps.mean(dim=1))
        if not self.guided:
            return maps
        guide = self._guide(images, labels)
        if self.per_layer:
            return scaled_channels(maps * guide[:, None])
        return min_max(maps * guide)

    def _layer_maps(self, images: Tensor, labels: Tensor | None) -> Tensor:
        weights: Sequence[Tensor | None]
        if self.method.uses_gradients:
            features, weights = activations_and_gradients(
                self.model, self.layers, images, labels, self.autocast, self.clock
            )
        elif self.method.sketches_jacobian:
            features = weights = squared_jacobians(self.model, self.layers, images, self.autocast, self.clock)
        else:
            features, logits = activations(self.model, self.layers, images, self.autocast, self.clock)
            weights = [None] * len(features)
            if self.method.perturb is not None:
                labels = logits.argmax(dim=1) if labels is None else labels
                weights = [self._perturbed(*pair, images, labels) for pair in zip(self.layers, features, strict=True)]
        with torch.inference_mode(), self.clock("projection", images.device):
            maps = [self._layer_map(*pair) for pair in zip(features, weights, strict=True)]
            return torch.stack(maps, dim=1)

    def _perturbed(self, layer: TargetLayer, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        device = images.device
        with torch.inference_mode(), self.clock("forward", device), autocast_context(images, self.autocast):
            return self.method.perturb(self.model, layer, images, labels, features)[:, :, None, None].float()

    def _layer_map(self, features: Tensor, weights: Tensor | None) -> Tensor:
        weighted = self.method.weigh(features, weights)
        saliency = first_principal_component(weighted) if self.project else weighted.sum(dim=1)
        saliency = min_max(saliency.relu())[:, None]
        return F.interpolate(saliency, self.map_size, mode="bilinear", align_corners=False)[:, 0]

    def _full_grad(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with self.clock("backward", images.device), autocast_context(images, self.autocast):
            own, *others = full_gradients(self.model, images, labels)
        with torch.inference_mode(), self.clock("projection", images.device):
            # Resizing is linear, so that the channels of a layer can be summed before it.
            own = shrunk(scaled_channels(own.float()), self.map_size)
            summed = [scaled_channels(part.float()).sum(dim=1, keepdim=True) for part in others]
            parts = torch.cat([own, *(shrunk(part, self.map_size) for part in summed)], dim=1)
            if not self.project:
                return min_max(parts.sum(dim=1))
            reduced = tuple(max(1, side // FULL_GRAD_REDUCTION) for side in self.map_size)
            parts = F.interpolate(scaled_channels(parts), reduced, mode="bilinear", align_corners=False)
            maps = min_max(first_principal_component(parts))[:, None]
            return min_max(F.interpolate(maps, self.map_size, mode="bilinear", align_corners=False)[:, 0])

    def _guide(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with self.clock("backward", images.device), autocast_context(images, self.autocast):
            gradients = guided_backpropagation(self.model, images, labels)
        with torch.inference_mode():
            return min_max(shrunk(gradients.float(), self.map_size).mean(dim=1))


def min_max(maps: Tensor) -> Tensor:
    """Scales each map of (B, H, W) to [0, 1]; a constant map becomes 0 (pytorch-grad-cam's `scale_cam_image`)."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))


def scaled_channels(maps: Tensor) -> Tensor:
    """Scales each channel of (B, C, H, W) to [0, 1]."""
    return min_max(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])


def replace_useless(maps: Tensor) -> Tensor:
    """Returns (B, H, W) with the maps that say nothing, empty or not finite, replaced by "no preference", 0.5."""
    useless = ~maps.isfinite().all(dim=(1, 2)) | (maps == 0).all(dim=(1, 2))
    return maps.masked_fill(useless[:, None, None], NO_PREFERENCE)
