"""Loss terms that torchdistill lacks, registered for use as criteria in configs.

`reduction` states, as in torch's losses, whether a term is a sum or a mean over the batch. The distortion of plain head
distillation is not among them: it is torch's MSELoss with reduction "sum".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdistill.losses.registry import register_mid_level_loss

from misc.errors import UserError, did_you_mean

LAYOUTS = ("NCHW", "NHWC", "NLC")


@register_mid_level_loss
class RateLoss(nn.Module):
    """Bits of the whole batch: -log2 p summed over all elements of all latents; its weight in a config is lmbda.

    With variable rate, the bits of each image are weighted by the lmbda of its level, and the weight in a config is 1.

    Args:
        codec_path: module whose hooked output holds `likelihoods`.
        gains_path: module whose hooked output holds each image's `lmbda` (`model.gains.GainUnits`); None with one rate.
    """

    reduction = "sum"

    def __init__(self, codec_path: str = "entropy_model.codec", gains_path: str | None = None):
        super().__init__()
        self.codec_path = codec_path
        self.gains_path = gains_path

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        likelihoods = student_io_dict[self.codec_path]["output"]["likelihoods"]
        bits = -sum(torch.log2(likelihood).flatten(1).sum(1) for likelihood in likelihoods.values())
        if self.gains_path is not None:
            bits = bits * student_io_dict[self.gains_path]["output"].lmbda
        return bits.sum()


@register_mid_level_loss
class BppLoss(RateLoss):
    """Bits per pixel of the input image, averaged over the batch: the rate of direct optimisation.

    Args:
        image_path: module whose hooked input is the image, (B, 3, H, W).
        codec_path: module whose hooked output holds `likelihoods`.
        gains_path: as for `RateLoss`.
    """

    reduction = "mean"

    def __init__(
        self, image_path: str = "encoder", codec_path: str = "entropy_model.codec", gains_path: str | None = None
    ):
        super().__init__(codec_path, gains_path)
        self.image_path = image_path

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        x = student_io_dict[self.image_path]["input"]
        return super().forward(student_io_dict, teacher_io_dict) / (len(x) * x.shape[-2] * x.shape[-1])


@register_mid_level_loss
class RelativeRateLoss(RateLoss):
    """Bits of each image times the variance of h per pixel, summed over the batch; its weight in a config is lmbda.

    Beside a plain sum of squared errors D, it makes the loss, up to the factor V, D / V + lmbda * bpp, where V is the
    variance of h summed over its elements: lmbda weighs bits per pixel against the distortion relative to V. So one
    lmbda means about the same for every backbone and image size, though the scale of h is arbitrary where normalisation
    follows.

    Args:
        variance: of h over images, summed over its elements and divided by the number of an image's pixels; None is
            measured before the training (`misc.training.feature_variance`).
        codec_path: as for `RateLoss`.
        gains_path: as for `RateLoss`.
    """

    def __init__(
        self,
        variance: float | None = None,
        codec_path: str = "entropy_model.codec",
        gains_path: str | None = None,
    ):
        super().__init__(codec_path, gains_path)
        self.variance = variance

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        if self.variance is None:
            raise UserError("RelativeRateLoss has no variance of h: it is measured when a training begins")
        return self.variance * super().forward(student_io_dict, teacher_io_dict)


@register_mid_level_loss
class FeatureHint(nn.Module):
    """Mean squared error between a student's feature and a convolutional teacher's (FitNets, ICLR 2015).

    Args:
        student_path: module whose hooked output is (B, H, W, C) if channels_last, else (B, C, H, W).
        teacher_path: module whose hooked output is (B, C, H, W).
        channels_last: layout of the student's feature, as in a Swin.
    """

    reduction = "mean"

    def __init__(self, student_path: str, teacher_path: str, channels_last: bool = True):
        super().__init__()
        self.student_path = student_path
        self.teacher_path = teacher_path
        self.channels_last = channels_last

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        feature = student_io_dict[self.student_path]["output"].float()
        wanted = teacher_io_dict[self.teacher_path]["output"].float()
        return F.mse_loss(feature.permute(0, 3, 1, 2) if self.channels_last else feature, wanted)


@register_mid_level_loss
class SaliencyWeightedDistortion(nn.Module):
    """D = sum (alpha + beta s) (h_hat - h)^2 / (alpha + beta), the paper's saliency-guided distortion.

    s is the map of targets["saliency"], (B, 1, H, W) in [0, 1]; it is averaged over the image area of each feature
    position and is the same for all channels. A ViT's prefix tokens stand for the whole image and have full weight
    (s = 1). Several such terms, on features of different depths, form the multi-resolution distortion.

    Args:
        student_path: module whose hooked output is h_hat.
        teacher_path: module whose hooked output is h, of the same shape.
        alpha: weight of the plain squared error.
        beta: weight of the squared error times s; the paper uses alpha = beta.
        layout: of both features: "NCHW"; "NHWC" (inside a Swin's tail); or "NLC" (a ViT's `prefix_tokens`, then a
            square grid of patches).
        prefix_tokens: their number, with "NLC".

    Raises:
        UserError: an unknown layout, or features of another layout.
    """

    reduction = "sum"

    def __init__(
        self,
        student_path: str,
        teacher_path: str,
        alpha: float = 0.5,
        beta: float = 0.5,
        layout: str = "NCHW",
        prefix_tokens: int = 1,
    ):
        super().__init__()
        if layout not in LAYOUTS:
            raise UserError(f"SaliencyWeightedDistortion has no layout '{layout}'{did_you_mean(layout, LAYOUTS)}")
        self.student_path = student_path
        self.teacher_path = teacher_path
        self.alpha = alpha
        self.beta = beta
        self.layout = layout
        self.prefix_tokens = prefix_tokens

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: dict) -> Tensor:
        h_hat = student_io_dict[self.student_path]["output"].float()
        h = teacher_io_dict[self.teacher_path]["output"].float()
        s = self._per_token(targets["saliency"], h.shape)
        weight = (self.alpha + self.beta * s) / (self.alpha + self.beta)
        return (weight * (h_hat - h).square()).sum()

    def _per_token(self, saliency: Tensor, shape: torch.Size) -> Tensor:
        grid = math.isqrt(max(0, shape[1] - self.prefix_tokens))
        if len(shape) != len(self.layout) or (self.layout == "NLC" and grid**2 + self.prefix_tokens != shape[1]):
            raise UserError(f"{self.teacher_path} gives {tuple(shape)}, which is not {self.layout}: change the layout")
        if self.layout == "NCHW":
            return F.adaptive_avg_pool2d(saliency, shape[2:])
        if self.layout == "NHWC":
            return F.adaptive_avg_pool2d(saliency, shape[1:3]).permute(0, 2, 3, 1)
        patches = F.adaptive_avg_pool2d(saliency, (grid, grid)).flatten(2).transpose(1, 2)
        return torch.cat([patches.new_ones(len(patches), self.prefix_tokens, 1), patches], dim=1)
