"""Class activation methods: how activations A and gradients G of the class logit become weighted activations.

Every function takes A and G, both (B, C, H, W), and returns (B, C, H, W); the map is the sum or the first principal
component of that over the channels. Names, formulas and small constants are those of pytorch-grad-cam, whose maps
these reproduce (https://github.com/jacobgil/pytorch-grad-cam). Sensitivity is this project's own.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_POSITIONS = (2, 3)


class CamMethod(NamedTuple):
    """One method.

    Attributes:
        weigh: returns the weighted activations of A and G.
        uses_gradients: whether it needs G; without, G is None.
        always_projects: whether it is a principal component by definition.
        uses_jacobian: whether `squared_jacobians`, which no class enters, stands in for both A and G.
    """

    weigh: Callable[[Tensor, Tensor | None], Tensor]
    uses_gradients: bool = True
    always_projects: bool = False
    uses_jacobian: bool = False


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh each channel by its mean gradient. Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391."""
    return gradients.mean(_POSITIONS, keepdim=True) * activations


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh positive gradients by eq. 19 of Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063."""
    squared = gradients**2
    cubed_times_sum = squared * gradients * activations.sum(_POSITIONS, keepdim=True)
    alpha = torch.where(gradients != 0, squared / (2 * squared + cubed_times_sum + 1e-6), 0)
    return (gradients.relu() * alpha).sum(_POSITIONS, keepdim=True) * activations


def x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh gradients by each position's share of its channel. Fu et al. 2020, https://arxiv.org/abs/2008.02312."""
    share = gradients * activations / (activations.sum(_POSITIONS, keepdim=True) + 1e-7)
    return share.sum(_POSITIONS, keepdim=True) * activations


def hi_res_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Multiply element by element, as EigenGradCAM does too. Draelos and Carin 2020, https://arxiv.org/abs/2011.08891."""
    return gradients * activations


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Multiply element by element, positive gradients only. Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943."""
    return gradients.relu() * activations


def eigen_cam(activations: Tensor, gradients: None) -> Tensor:
    """Return the activations unweighted. Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299."""
    return activations


def sensitivity(squared: Tensor, _: Tensor) -> Tensor:
    """Divide the squared Jacobian by the image's mean of it."""
    return squared / (squared.mean((1, 2, 3), keepdim=True) + 1e-30)


CAM_METHODS = {
    "GradCAM": CamMethod(grad_cam),
    "GradCAMPlusPlus": CamMethod(grad_cam_plus_plus),
    "XGradCAM": CamMethod(x_grad_cam),
    "HiResCAM": CamMethod(hi_res_cam),
    "LayerCAM": CamMethod(layer_cam),
    "EigenCAM": CamMethod(eigen_cam, uses_gradients=False, always_projects=True),
    "EigenGradCAM": CamMethod(hi_res_cam, always_projects=True),
    "Sensitivity": CamMethod(sensitivity, uses_gradients=False, uses_jacobian=True),
}
