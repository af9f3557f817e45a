"""What passes between sender and receiver, per prior: one procedure that both go through, in exact integers.

The sender knows y and the receiver does not, but whatever chooses a table or a mean is computed by both, from what has
passed already, with the same integer networks (`model.coding.exact`). So both get the same y_hat on any two machines,
and the bytes depend on y alone.

A procedure takes a line (`model.coding.channel.Sender` or `Receiver`), the number of images, the latent's size (H, W),
and y, float32 (images, C, H, W) on the sender's side and None on the receiver's. It returns y_hat of that shape,
float32.
Fixed-point values are float64 integers in units of 2^-16.
"""

from collections.abc import Callable

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import EntropyBottleneckLatentCodec, HyperpriorLatentCodec
from torch import Tensor

from misc.devices import one_core
from model.coding.ans import Tables
from model.coding.channel import Receiver, Sender
from model.coding.exact import LARGEST, ONE, exact, fixed_point


class FactorizedTransmission:
    """y alone, its distance to the channels' medians; y_hat is a sum of two float32 numbers, the same everywhere."""

    def __init__(self, codec: EntropyBottleneckLatentCodec):
        self.medians = medians_of(codec.entropy_bottleneck)
        self.tables = Tables(codec.entropy_bottleneck)

    def __call__(self, line: Sender | Receiver, images: int, size: tuple[int, int], y: Tensor | None) -> Tensor:
        symbols = line.carry(lambda: y - self.medians, by_channel(self.medians, images, size), self.tables)
        return symbols.float() + self.medians


class HyperTransmission:
    """z, then y given z: every position of y at once.

    Attributes:
        stride: of z against y.
        mean_step: means are multiples of 2^-10; with symbols up to 2^13, float32 then holds y_hat exactly.
    """

    stride = 4
    mean_step = ONE // 2**10

    def __init__(self, codec: HyperpriorLatentCodec):
        conditional = next(module for module in codec.modules() if isinstance(module, GaussianConditional))
        self.h_a, self.h_s = exact(codec.hyper.h_a), exact(codec.hyper.h_s)
        self.medians = fixed_point(medians_of(codec.hyper.entropy_bottleneck))
        self.z_tables = Tables(codec.hyper.entropy_bottleneck)
        self.y_tables = Tables(conditional)
        self.thresholds = (conditional.scale_table[:-1].double() * ONE).round()

    def __call__(self, line: Sender | Receiver, images: int, size: tuple[int, int], y: Tensor | None) -> Tensor:
        y = None if y is None else fixed_point(y)
        z_size = tuple(side // self.stride for side in size)
        indexes = by_channel(self.medians, images, z_size)
        z = line.carry(lambda: (self.h_a(y) - self.medians) / ONE, indexes, self.z_tables) * ONE + self.medians
        return (self.y_hat(line, self.h_s(z), y) / ONE).float()

    def y_hat(self, line: Sender | Receiver, params: Tensor, y: Tensor | None) -> Tensor:
        """Passes y given what h_s makes of z; returns y_hat in fixed point."""
        return self.carry(line, params, lambda: y)

    def carry(self, line: Sender | Receiver, params: Tensor, y: Callable[[], Tensor]) -> Tensor:
        """Passes fixed-point elements of y, which `y()` gives, on the terms of `params`."""
        scales, means = self.gaussian(params)
        means = (means.clamp(-LARGEST, LARGEST) / self.mean_step).round() * self.mean_step
        indexes = torch.bucketize(scales.contiguous(), self.thresholds)
        return line.carry(lambda: (y() - means) / ONE, indexes, self.y_tables) * ONE + means

    def gaussian(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scales and means."""
        return params.chunk(2, 1)


class ScaleTransmission(HyperTransmission):
    """z, then y, whose means are all zero."""

    def gaussian(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return params, torch.zeros_like(params)


class ContextTransmission(HyperTransmission):
    """Base of those that also look at what has passed of y."""

    def __init__(self, codec: HyperpriorLatentCodec):
        super().__init__(codec)
        self.context = exact(codec.y.context_prediction)
        self.parameters = exact(codec.y.entropy_parameters)


class RasterTransmission(ContextTransmission):
    """y position by position, given a window of what has passed: two rows above and two positions to the left."""

    reach = 2

    def __init__(self, codec: HyperpriorLatentCodec):
        super().__init__(codec)
        self.context.window["padding"] = (0, 0)  # it sees one window at a time

    def y_hat(self, line: Sender | Receiver, params: Tensor, y: Tensor | None) -> Tensor:
        with one_core():  # its thousands of small steps would wait for one another's threads
            return self.position_by_position(line, params, y)

    def position_by_position(self, line: Sender | Receiver, params: Tensor, y: Tensor | None) -> Tensor:
        """Returns y_hat in fixed point."""
        reach, (images, channels, height, width) = self.reach, params.shape
        padded = params.new_zeros(images, channels // 2, height + 2 * reach, width + 2 * reach)
        for i in range(height):
            for j in range(width):
                here = (..., slice(i, i + 1), slice(j, j + 1))
                seen = self.context(padded[..., i : i + 2 * reach + 1, j : j + 2 * reach + 1])
                gaussian = self.parameters(torch.cat((params[here], seen), 1))
                passed = self.carry(line, gaussian, lambda here=here: y[here])
                padded[..., i + reach, j + reach] = passed[..., 0, 0]
        return padded[..., reach:-reach, reach:-reach]


class CheckerboardTransmission(ContextTransmission):
    """y in two halves: the positions with an even sum of coordinates, then the others given those."""

    def y_hat(self, line: Sender | Receiver, params: Tensor, y: Tensor | None) -> Tensor:
        images, channels, height, width = params.shape
        rows = torch.arange(height, device=params.device)[:, None]
        columns = torch.arange(width, device=params.device)
        y_hat = params.new_zeros(images, channels // 2, height, width)
        seen = torch.zeros_like(params)
        for parity in (0, 1):
            half = (rows + columns) % 2 == parity
            gaussian = self.parameters(torch.cat((seen, params), 1))[..., half]
            y_hat[..., half] = self.carry(line, gaussian, lambda half=half: y[..., half])
            seen = self.context(y_hat)
        return y_hat


def medians_of(bottleneck: EntropyBottleneck) -> Tensor:
    """Returns the medians of an entropy bottleneck's channels, (C, 1, 1)."""
    return bottleneck.quantiles.detach()[:, :, 1:2].clone()


def by_channel(medians: Tensor, images: int, size: tuple[int, int]) -> Tensor:
    """Returns the index of its channel for every element of (images, C, *size)."""
    channels = torch.arange(len(medians), device=medians.device)
    return channels[:, None, None].expand(images, -1, *size)
