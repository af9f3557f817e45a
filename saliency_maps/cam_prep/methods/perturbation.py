"""Methods without gradients: what a channel is worth is seen by taking it away, or by keeping nothing else.

Names, formulas and small constants are those of pytorch-grad-cam. Both need one forward pass per channel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_maps.cam_prep.methods.activations import replaced, target_logits
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

# pytorch-grad-cam ablates this many channels at a time, each by a value that is lower by STEP than the one before.
CHANNELS = 32
STEP = 1e7


def ablation_weights(model: nn.Module, layer: TargetLayer, images: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020): the relative drop of the logit when a channel is ablated.

    A channel becomes 0 where that is the least activation, and else far less than any.

    Args:
        model: frozen and in eval mode, (B, 3, H, W) -> (B, classes).
        layer: the target layer.
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices.
        features: the layer's activations, (B, C, H', W').

    Returns:
        (B, C).
    """
    original = target_logits(model(images), labels)
    weights = []
    for image, label, before in zip(images.split(1), labels.split(1), original, strict=True):
        chunks = torch.arange(features.shape[1], device=images.device).split(CHANNELS)
        after = torch.cat([_ablated_logits(model, layer, image, label, channels) for channels in chunks])
        weights.append((before - after) / before)
    return torch.stack(weights)


def _ablated_logits(model: nn.Module, layer: TargetLayer, image: Tensor, label: Tensor, channels: Tensor) -> Tensor:
    def ablate(output: Tensor) -> Tensor:
        copies, lowest = output.clone(), output.min()
        values = torch.zeros_like(channels, dtype=output.dtype)
        if lowest != 0:
            values = lowest - STEP * torch.arange(1, len(channels) + 1, device=output.device)
        by_channel = copies.movedim(layer.layout.channel_dim, 1)
        by_channel[torch.arange(len(channels)), channels] = values.view(-1, *[1] * (output.ndim - 2)).to(output.dtype)
        return copies

    with replaced(layer, ablate):
        return target_logits(model(image.expand(len(channels), -1, -1, -1)), label.expand(len(channels)))


def score_weights(model: nn.Module, layer: TargetLayer, images: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Score-CAM (Wang et al., CVPR workshops 2020): the softmax of the logits of the image seen through each channel.

    Args and returns: as `ablation_weights`.
    """
    masks = F.interpolate(features, images.shape[2:], mode="bilinear", align_corners=True)
    lowest, highest = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = (masks - lowest) / (highest - lowest + 1e-8)
    weights = []
    for image, label, channels in zip(images, labels, masks, strict=True):
        seen = (image * mask[:, None] for mask in channels.split(CHANNELS))
        scores = torch.cat([target_logits(model(batch), label.expand(len(batch))) for batch in seen])
        weights.append(scores.softmax(dim=0))
    return torch.stack(weights)
