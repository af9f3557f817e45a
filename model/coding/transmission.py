"""How each prior passes y from sender to receiver: one procedure that both execute, in exact integers.

Only the sender knows y. Everything that selects a table or a mean is computed by both ends, from symbols already passed
and with the same integer networks (`model.coding.exact`). Hence both obtain the same y_hat on any two machines, and the
bytes depend on y alone.

A procedure takes a channel end (a Sender, Receiver or Recorder of `model.coding.channel`), the number of images, the
latent's size (H, W), y, float32 (images, C, H, W), or None at the receiver, and the images' gains, or None with one
rate. It returns y_hat, float32, of that shape. With variable rate, y is already multiplied by its gain, and y_hat yet
to be multiplied by the inverse gain.

Fixed-point values are float64 integers in units of 2^-16. The class docstrings state in real numbers what is computed.
"""

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import EntropyBottleneckLatentCodec, HyperpriorLatentCodec
from torch import Tensor

from misc.devices import one_core
from model.coding.ans import Tables
from model.coding.channel import Receiver, Recorder, Sender, checkerboard, tables_of
from model.coding.exact import LARGEST, ONE, ExactConv2d, exact, fixed_point
from model.gained_bottleneck import GainedBottleneckLatentCodec
from model.gains import Gains

End = Sender | Receiver | Recorder


class FactorizedTransmission:
    """Pass y alone.

        symbols = round(y - medians)
        y_hat = symbols + medians
        bits = -log2 p(y_hat)

    y_hat is the sum of two float32 numbers, which is the same everywhere.
    """

    def __init__(self, codec: EntropyBottleneckLatentCodec):
        self.medians = medians_of(codec.entropy_bottleneck)
        self.tables = tables_of(codec.entropy_bottleneck)

    def __call__(
        self, end: End, images: int, size: tuple[int, int], y: Tensor | None, gains: Gains | None = None
    ) -> Tensor:
        residuals = None if y is None else y - self.medians
        symbols = end.code(residuals, channel_indexes(self.medians, images, size), self.tables)
        return symbols.float() + self.medians


class GainedTransmission:
    """Pass y alone, with the tables of the nearest level.

        symbols = round(y - gain * medians)
        y_hat = symbols + gain * medians
        bits = -log2 p(y_hat / gain) / gain

    The medians matter to no table, so a receiver whose gains differ in the last bit reads the same symbols.
    """

    def __init__(self, codec: GainedBottleneckLatentCodec):
        self.medians = medians_of(codec.entropy_bottleneck)
        self.tables = tables_of(codec.entropy_bottleneck)

    def __call__(self, end: End, images: int, size: tuple[int, int], y: Tensor | None, gains: Gains) -> Tensor:
        medians = self.medians * gains.gain
        channels = channel_indexes(self.medians, images, size)
        indexes = channels + gains.nearest[:, None, None, None] * len(self.medians)
        symbols = end.code(None if y is None else y - medians, indexes, self.tables)
        return symbols.float() + medians


class HyperTransmission:
    """Pass z, then y given z, all positions at once.

        z = h_a(y)
        z_hat = round(z - medians) + medians
        scales, means = h_s(z_hat).chunk(2)
        y_hat = round(y - means) + means
        bits = -log2 p(z_hat) - log2 N(y_hat; means, scales)

    Attributes:
        stride: sides of y per side of z.
        mean_step: means are multiples of 2^-10: with symbols up to 2^13, float32 then represents y_hat exactly.
    """

    stride = 4
    mean_step = ONE // 2**10

    def __init__(self, codec: HyperpriorLatentCodec):
        conditional = next(module for module in codec.modules() if isinstance(module, GaussianConditional))
        self.h_a, self.h_s = exact(codec.hyper.h_a), exact(codec.hyper.h_s)
        self.medians = fixed_point(medians_of(codec.hyper.entropy_bottleneck))
        self.z_tables = tables_of(codec.hyper.entropy_bottleneck)
        self.y_tables = tables_of(conditional)
        self.thresholds = (conditional.scale_table[:-1].double() * ONE).round()

    def __call__(
        self, end: End, images: int, size: tuple[int, int], y: Tensor | None, gains: Gains | None = None
    ) -> Tensor:
        y = None if y is None else fixed_point(y)
        z = None if y is None else self.h_a(y)
        z_size = tuple(side // self.stride for side in size)
        z_hat = code(end, z, self.medians, channel_indexes(self.medians, images, z_size), self.z_tables)
        y_hat = self.pass_y(end, self.h_s(z_hat), y)
        return (y_hat / ONE).float()

    def pass_y(self, end: End, params: Tensor, y: Tensor | None) -> Tensor:
        """Pass y given params = h_s(z_hat); return y_hat in fixed point."""
        return self.code_gaussian(end, params, y)

    def code_gaussian(self, end: End, params: Tensor, y: Tensor | None, parity: int | None = None) -> Tensor:
        """Pass elements of y whose scales and means are in `params`; return those of y_hat in fixed point."""
        scales, means = self.gaussian(params)
        means = (means.clamp(-LARGEST, LARGEST) / self.mean_step).round() * self.mean_step
        indexes = torch.bucketize(scales.contiguous(), self.thresholds)
        return code(end, y, means, indexes, self.y_tables, parity)

    def gaussian(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and means."""
        scales, means = params.chunk(2, 1)
        return scales, means


class ScaleTransmission(HyperTransmission):
    """Pass z, then y, all of whose means are zero.

    z = h_a(|y|)
    z_hat = round(z - medians) + medians
    scales = h_s(z_hat)
    y_hat = round(y)
    bits = -log2 p(z_hat) - log2 N(y_hat; 0, scales)
    """

    def gaussian(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return params, torch.zeros_like(params)


class ContextTransmission(HyperTransmission):
    """Base of the procedures whose scales and means also depend on the y_hat passed so far."""

    def __init__(self, codec: HyperpriorLatentCodec):
        super().__init__(codec)
        self.context = ExactConv2d(codec.y.context_prediction)
        self.parameters = exact(codec.y.entropy_parameters)


class RasterTransmission(ContextTransmission):
    """Pass z, then y position by position, given the two rows above and the two positions to the left.

    z = h_a(y)
    z_hat = round(z - medians) + medians
    params = h_s(z_hat)
    for i, j in positions, row by row:
        seen = context(y_hat[i - 2 : i + 3, j - 2 : j + 3])     # masked: what was passed before
        scales, means = parameters(params[i, j], seen).chunk(2)
        y_hat[i, j] = round(y[i, j] - means) + means
    bits = -log2 p(z_hat) - log2 N(y_hat; means, scales)
    """

    reach = 2

    def __init__(self, codec: HyperpriorLatentCodec):
        super().__init__(codec)
        self.context.padding = (0, 0)  # it is given one window at a time

    def pass_y(self, end: End, params: Tensor, y: Tensor | None) -> Tensor:
        with one_core():  # in thousands of small steps, threads would mostly wait for each other
            return self.pass_positions(end, params, y)

    def pass_positions(self, end: End, params: Tensor, y: Tensor | None) -> Tensor:
        """Pass y row by row; return y_hat in fixed point."""
        reach, (images, channels, height, width) = self.reach, params.shape
        padded = params.new_zeros(images, channels // 2, height + 2 * reach, width + 2 * reach)
        for i in range(height):
            for j in range(width):
                here = (..., slice(i, i + 1), slice(j, j + 1))
                seen = self.context(padded[..., i : i + 2 * reach + 1, j : j + 2 * reach + 1])
                gaussian = self.parameters(torch.cat((params[here], seen), 1))
                y_hat = self.code_gaussian(end, gaussian, None if y is None else y[here])
                padded[..., i + reach, j + reach] = y_hat[..., 0, 0]
        return padded[..., reach:-reach, reach:-reach]


class CheckerboardTransmission(ContextTransmission):
    """Pass z, then y in two halves: the positions whose coordinates have an even sum, then the others given those.

    z = h_a(y)
    z_hat = round(z - medians) + medians
    params, seen = h_s(z_hat), 0
    for half in even, odd:
        scales, means = parameters(seen, params)[half].chunk(2)
        y_hat[half] = round(y[half] - means) + means
        seen = context(y_hat)
    bits = -log2 p(z_hat) - log2 N(y_hat; means, scales)
    """

    def pass_y(self, end: End, params: Tensor, y: Tensor | None) -> Tensor:
        seen, y_hat = torch.zeros_like(params), torch.zeros_like(params.chunk(2, 1)[0])
        for parity in (0, 1):
            gaussian = self.parameters(torch.cat((seen, params), 1))
            coded = self.code_gaussian(end, gaussian, y, parity)
            y_hat = torch.where(checkerboard(y_hat, parity), coded, y_hat)
            seen = self.context(y_hat)
        return y_hat


def code(
    end: End, values: Tensor | None, means: Tensor, indexes: Tensor, tables: Tables, parity: int | None = None
) -> Tensor:
    """Pass fixed-point values, which only the sender has; return them rounded to integer distances from the means."""
    residuals = None if values is None else (values - means) / ONE
    return end.code(residuals, indexes, tables, parity) * ONE + means


def medians_of(bottleneck: EntropyBottleneck) -> Tensor:
    """Return the medians of an entropy bottleneck's channels, (C, 1, 1)."""
    return bottleneck.quantiles.detach()[:, :, 1:2].clone()


def channel_indexes(medians: Tensor, images: int, size: tuple[int, int]) -> Tensor:
    """Return the channel number of every element of (images, C, *size)."""
    channels = torch.arange(len(medians), device=medians.device)
    return channels[:, None, None].expand(images, -1, *size)
