"""Class activation methods: how activations A and gradients G of the class logit become weighted activations.

Every function takes A and G, both (B, C, H, W), and returns (B, C, H, W); the map is its sum or its first principal
component over the channels. Names, formulas and small constants are those of pytorch-grad-cam, whose maps these
reproduce (https://github.com/jacobgil/pytorch-grad-cam); Sensitivity is none of its methods.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from saliency_maps.cam_prep.methods.perturbation import ablation_weights, score_weights
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

_POSITIONS = (2, 3)


class CamMethod(NamedTuple):
    """One method.

    Attributes:
        weigh: the weighted activations from A and G; in place of G come the channel weights of a perturbing method,
            (B, C, 1, 1), or None where it needs neither.
        uses_gradients: whether it needs G.
        always_projects: whether it is a principal component by definition.
        perturb: finds channel weights, (B, C), by further forward passes.
        sketches_jacobian: whether in place of G comes `squared_jacobians`, whatever the class.
    """

    weigh: Callable[[Tensor, Tensor | None], Tensor]
    uses_gradients: bool = True
    always_projects: bool = False
    perturb: Callable[[nn.Module, TargetLayer, Tensor, Tensor, Tensor], Tensor] | None = None
    sketches_jacobian: bool = False


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel weighs its mean gradient. Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391."""
    return gradients.mean(_POSITIONS, keepdim=True) * activations


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Positive gradients weighted by eq. 19 of Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063."""
    squared = gradients**2
    cubed_times_sum = squared * gradients * activations.sum(_POSITIONS, keepdim=True)
    alpha = torch.where(gradients != 0, squared / (2 * squared + cubed_times_sum + 1e-6), 0)
    return (gradients.relu() * alpha).sum(_POSITIONS, keepdim=True) * activations


def x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradients weighted by the share each position has in its channel. Fu et al. 2020, https://arxiv.org/abs/2008.02312."""
    share = gradients * activations / (activations.sum(_POSITIONS, keepdim=True) + 1e-7)
    return share.sum(_POSITIONS, keepdim=True) * activations


def hi_res_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Element by element. Draelos and Carin 2020, https://arxiv.org/abs/2011.08891; also EigenGradCAM's weighting."""
    return gradients * activations


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Element by element, positive gradients only. Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943."""
    return gradients.relu() * activations


def eigen_cam(activations: Tensor, gradients: None) -> Tensor:
    """The activations as they are. Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299."""
    return activations


def weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Channels times the weights of a perturbing method."""
    return weights * activations


def sensitivity(activations: Tensor, squared: Tensor) -> Tensor:
    """The squared Jacobian relative to the image's mean; the activations play no part."""
    return squared / (squared.mean((1, 2, 3), keepdim=True) + 1e-30)


CAM_METHODS = {
    "GradCAM": CamMethod(grad_cam),
    "GradCAMPlusPlus": CamMethod(grad_cam_plus_plus),
    "XGradCAM": CamMethod(x_grad_cam),
    "HiResCAM": CamMethod(hi_res_cam),
    "LayerCAM": CamMethod(layer_cam),
    "EigenCAM": CamMethod(eigen_cam, uses_gradients=False, always_projects=True),
    "EigenGradCAM": CamMethod(hi_res_cam, always_projects=True),
    "AblationCAM": CamMethod(weighted, uses_gradients=False, perturb=ablation_weights),
    "ScoreCAM": CamMethod(weighted, uses_gradients=False, perturb=score_weights),
    "Sensitivity": CamMethod(sensitivity, uses_gradients=False, sketches_jacobian=True),
}
FULL_GRAD = "FullGrad"
SALIENCY_TYPES = (*CAM_METHODS, FULL_GRAD)
