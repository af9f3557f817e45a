"""Integer networks: bit-identical output for any device, thread count, library and batch size.

If a float network selects the coder's tables, the decoder desynchronises as soon as one last bit differs between two
machines. Here activations are fixed-point integers in units of 2^-16, weights are integers too, and a convolution sums
integer products. All are stored in float64, whose sums and products of integers are exact below 2^53, in any order and
with or without fused operations. The convolution is an unfold and a matrix product, since a library's float convolution
may choose an algorithm (FFT, Winograd) with non-integer intermediate values.

Integer networks for this purpose: Balle, Johnston, Minnen, ICLR 2019. Theirs are trained as such; these are derived
from the weights of trained float networks.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import Magnitude, ResidualBlock

FRACTION_BITS = 16
ONE = 2**FRACTION_BITS
LARGEST = 2**12 * ONE  # inputs of convolutions saturate at 4,096, far beyond any sensible latent
EXACT = 2**53
WEIGHT_BITS = 16
EXACT_ANYWAY = (nn.Identity, nn.ReLU, Magnitude)


def fixed_point(x: Tensor) -> Tensor:
    """Return float64 integers in units of 2^-16, rounded half to even, saturated at +-4,096.

    Raises:
        ValueError: values that are not finite.
    """
    if not torch.isfinite(x).all():
        raise ValueError("infinities and NaN have no fixed-point value")
    return (x.double() * ONE).round().clamp(-LARGEST, LARGEST)


def exact(network: nn.Module) -> nn.Module:
    """Return an integer copy of a network, made from its current weights.

    Inputs and outputs are float64 integers in units of 2^-16. The inputs of every convolution and LeakyReLU saturate at
    +-4,096.

    Args:
        network: a convolution, or residual blocks and sequences of convolutions, ReLU, LeakyReLU, magnitudes and
            nearest upsampling by 1, 2, 4, 8 or 16.

    Raises:
        TypeError: a module, or a setting of one, that has no exact counterpart.
        ValueError: weights too large to be summed exactly.
    """
    if isinstance(network, nn.Conv2d):
        return ExactConv2d(network)
    if isinstance(network, nn.LeakyReLU):
        return ExactLeakyReLU(network.negative_slope)
    if isinstance(network, EXACT_ANYWAY) or _is_integer_upsampling(network):
        return copy.deepcopy(network)
    if not isinstance(network, nn.Sequential | ResidualBlock):
        raise TypeError(f"{network} has no exact counterpart")
    twin = copy.copy(network)
    twin._modules = {name: exact(child) for name, child in network.named_children()}
    return twin


def _is_integer_upsampling(module: nn.Module) -> bool:
    return isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor in (1, 2, 4, 8, 16)


class ExactConv2d(nn.Module):
    """A convolution that sums integer products exactly and rounds once, half to even.

    Attributes:
        weight: float64 integers (out_channels, in_channels * kernel), in units of 2^-weight_bits, masks applied.
        bias: float64 integers (out_channels, 1), in units of 2^-(16 + weight_bits).
        weight_bits: 16, or fewer if large weights need it for exact sums.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        if conv.groups != 1 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise TypeError(f"{conv} has no exact counterpart: only one group and padding by numbers of zeros")
        self.window = {name: getattr(conv, name) for name in ("kernel_size", "dilation", "padding", "stride")}
        masked = conv.weight * conv.mask if hasattr(conv, "mask") else conv.weight
        weight = masked.detach().double().flatten(1)
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        self.weight_bits = _largest_weight_bits(weight, bias)
        self.weight = (weight * 2**self.weight_bits).round()
        self.bias = (bias * 2 ** (FRACTION_BITS + self.weight_bits)).round()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        height, width = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, kernel, dilation, padding, stride in zip(x.shape[-2:], *self.window.values(), strict=True)
        )
        columns = F.unfold(x.clamp(-LARGEST, LARGEST), **self.window)
        sums = (self.weight @ columns + self.bias) * 2.0**-self.weight_bits
        return sums.round().unflatten(-1, (height, width))


def largest_sum(weight: Tensor, bias: Tensor) -> float:
    """Return an upper bound on the partial sums of a convolution for any input, in its own integer units."""
    return float((weight.abs().sum(1) * LARGEST + bias.abs().flatten()).max())


def _largest_weight_bits(weight: Tensor, bias: Tensor) -> int:
    for bits in range(WEIGHT_BITS, 0, -1):
        scaled = (weight * 2**bits).round(), (bias * 2 ** (FRACTION_BITS + bits)).round()
        if largest_sum(*scaled) <= EXACT:
            return bits
    raise ValueError("the weights of a convolution are too large, or not finite: its sums would not be exact")


class ExactLeakyReLU(nn.Module):
    """LeakyReLU with the slope in units of 2^-16, the product rounded half to even."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = round(slope * ONE)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(-LARGEST, LARGEST)
        return torch.where(x < 0, (x * self.slope / ONE).round(), x)
