"""Loss terms that torchdistill does not have; a config names them as criteria, everything is summed over the batch.

Plain head distillation needs none for its distortion: that is torch's MSELoss with reduction "sum".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdistill.losses.registry import register_mid_level_loss


@register_mid_level_loss
class RateLoss(nn.Module):
    """Bits of the whole batch, -log2 p(y_hat) summed over every latent and element; the config's weight is lmbda.

    Args:
        codec_path: module whose hooked output holds `likelihoods`.
    """

    def __init__(self, codec_path: str = "entropy_model.codec"):
        super().__init__()
        self.codec_path = codec_path

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        likelihoods = student_io_dict[self.codec_path]["output"]["likelihoods"]
        return -sum(torch.log2(likelihood).sum() for likelihood in likelihoods.values())


@register_mid_level_loss
class FeatureHint(nn.Module):
    """Mean squared error between a transformer's feature and a convolutional teacher's (FitNets, ICLR 2015).

    Args:
        student_path: module whose hooked output is channels last, (B, H, W, C).
        teacher_path: module whose hooked output is channels first, (B, C, H, W).
    """

    def __init__(self, student_path: str, teacher_path: str):
        super().__init__()
        self.student_path = student_path
        self.teacher_path = teacher_path

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: object = None) -> Tensor:
        feature = student_io_dict[self.student_path]["output"].float()
        wanted = teacher_io_dict[self.teacher_path]["output"].float()
        return F.mse_loss(feature.permute(0, 3, 1, 2), wanted)


@register_mid_level_loss
class SaliencyWeightedDistortion(nn.Module):
    """D = sum (alpha + beta s) (h_hat - h)^2 / (alpha + beta), the paper's saliency-guided distortion.

    s is the map of targets["saliency"], (B, 1, H, W) in [0, 1]; each token takes the mean of s over the image area it
    stands for, the same for all its channels.

    Args:
        student_path: module whose hooked output is h_hat, (B, C, H', W').
        teacher_path: module whose hooked output is h, of the same shape.
        alpha: weight of the plain squared error.
        beta: weight of the squared error times s; the paper has alpha = beta.
    """

    def __init__(self, student_path: str, teacher_path: str, alpha: float = 0.5, beta: float = 0.5):
        super().__init__()
        self.student_path = student_path
        self.teacher_path = teacher_path
        self.alpha = alpha
        self.beta = beta

    def forward(self, student_io_dict: dict, teacher_io_dict: dict, targets: dict) -> Tensor:
        h_hat = student_io_dict[self.student_path]["output"].float()
        h = teacher_io_dict[self.teacher_path]["output"].float()
        s = F.adaptive_avg_pool2d(targets["saliency"], h.shape[-2:])
        weight = (self.alpha + self.beta * s) / (self.alpha + self.beta)
        return (weight * (h_hat - h).square()).sum()
