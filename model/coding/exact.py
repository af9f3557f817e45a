"""Integer networks: bit-identical output for any device, thread count, library and batch size.

If a float network selects the coder's tables, the decoder desynchronises as soon as one last bit differs between two
machines. Here activations are fixed-point integers in units of 2^-16, weights are integers too, and a convolution sums
integer products. All are stored in float64, whose sums and products of integers are exact below 2^53, in any order and
with or without fused operations. The convolution is a matrix product, since a library's float convolution may choose an
algorithm (FFT, Winograd) with non-integer intermediate values; its columns are slices, which every exported graph has.

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
UPSAMPLING = (1, 2, 4, 8, 16)


def fixed_point(x: Tensor) -> Tensor:
    """Return float64 integers in units of 2^-16, rounded half to even, saturated at +-4,096; x must be finite."""
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
    if isinstance(network, EXACT_ANYWAY):
        return copy.deepcopy(network)
    if isinstance(network, nn.Upsample) and network.mode == "nearest" and network.scale_factor in UPSAMPLING:
        return Repeat(int(network.scale_factor))
    if not isinstance(network, nn.Sequential | ResidualBlock):
        raise TypeError(f"{network} has no exact counterpart")
    twin = copy.copy(network)
    twin._modules = {name: exact(child) for name, child in network.named_children()}
    return twin


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
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.padding = conv.padding
        masked = conv.weight * conv.mask if hasattr(conv, "mask") else conv.weight
        weight = masked.detach().double().flatten(1)
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        self.weight_bits = _largest_weight_bits(weight, bias)
        self.weight = (weight * 2**self.weight_bits).round()
        self.bias = (bias * 2 ** (FRACTION_BITS + self.weight_bits)).round()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        windows = self._windows(x.clamp(-LARGEST, LARGEST))
        sums = self.weight @ windows.flatten(4).flatten(1, 3) + self.bias
        return (sums * 2.0**-self.weight_bits).round().unflatten(-1, windows.shape[-2:])

    def _windows(self, x: Tensor) -> Tensor:
        """Return (B, in_channels, *kernel_size, H', W'): what each element of the kernel meets at each position."""
        vertical, horizontal = self.padding
        padded = F.pad(x, (horizontal, horizontal, vertical, vertical))
        rows = torch.stack([padded[..., row, :] for row in self._slices(0)], 2)
        return torch.stack([rows[..., column] for column in self._slices(1)], 3)

    def _slices(self, axis: int) -> list[slice]:
        """Return, for each element of the kernel along an axis, the padded positions that it meets."""
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return [slice(k, k - reach or None, self.stride[axis]) for k in range(0, reach + 1, self.dilation[axis])]


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


class Repeat(nn.Module):
    """Nearest upsampling by an integer, as a reshape: ONNX Runtime has no Resize of float64."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H * factor, W * factor)."""
        repeated = x[..., :, None, :, None].expand(-1, -1, -1, self.factor, -1, self.factor)
        return repeated.flatten(4, 5).flatten(2, 3)
