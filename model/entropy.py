"""Channel: entropy models on CompressAI's latent codecs; y -> bytes -> y_hat."""

from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.entropy_models import EntropyModel as TableModel
from compressai.latent_codecs import (
    CheckerboardLatentCodec,
    EntropyBottleneckLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
    LatentCodec,
    RasterScanLatentCodec,
)
from compressai.layers import CheckerboardMaskedConv2d, MaskedConv2d
from compressai.models import CompressionModel
from compressai.models.base import get_scale_table
from torch import Tensor, nn

from misc.errors import UserError
from model.coding.bitstream import MAX_POSITIONS, BitstreamError
from model.coding.channel import Call, Receiver, Recorder, Sender
from model.coding.derived import Derived
from model.coding.transmission import (
    CheckerboardTransmission,
    FactorizedTransmission,
    GainedTransmission,
    HyperTransmission,
    RasterTransmission,
    ScaleTransmission,
)
from model.gained_bottleneck import GainedBottleneckLatentCodec
from model.gains import DEFAULT_RATE, Gains, GainUnits
from model.layers import Magnitude, ResidualBlock

LARGEST_SCALE = 64.0


class EntropyModel(nn.Module):
    """Base of the priors: holds the latent codec and keeps probabilities in float32 under autocast.

    The forward pass and its likelihoods are CompressAI's, in floating point. `compress` and `decompress` code bytes in
    exact integers, with the same result on any device, thread count, memory format and batch size.

    The rate reaches torchdistill's losses through a forward hook on `entropy_model.codec`, whose output is
    `{"y_hat": ..., "likelihoods": {"y": ...}}`. In training, y_hat is y plus uniform noise (a checkerboard's is
    rounded, with a straight-through gradient); in evaluation it is rounded.

    Attributes:
        codec: CompressAI's latent codec.
        stride: of the hyper latent. Sides of y that are not multiples of it are padded with edge values and cropped
            after decoding; the padding's bits are counted and sent.
        max_positions: the largest latent that is coded, padding included; bounds the cost of untrusted streams.
        transmission: class of the coding procedure, constructed from a codec.
        latent_channels: channels of y.
        gains: the levels of a model of variable rate; None if the model has one rate.

    Args:
        latent_channels: channels of y.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    codec: LatentCodec
    stride = 1
    max_positions = MAX_POSITIONS
    transmission: Callable[[LatentCodec], Callable[..., Tensor]]

    def __init__(self, latent_channels: int, levels: Sequence[float] | None = None):
        super().__init__()
        self.latent_channels = latent_channels
        self.gains = None if levels is None else GainUnits(levels, latent_channels)
        self._derived: Derived[Callable[..., Tensor]] = Derived()

    def forward(self, y: Tensor, level: int | None = None) -> Tensor:
        """Return y_hat, of y's shape (B, C, H, W); levels as for `estimate`."""
        return self.estimate(y, level)[0]

    def estimate(self, y: Tensor, level: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return y_hat, and the likelihoods of all elements of "y" and, with a hyper latent, of "z".

        Args:
            y: (B, C, H, W).
            level: of a model of variable rate, 0 to `gains.last`; None draws one per image where gradients are
                recorded (in training, also of a decoder behind a frozen entropy model), else is the middle one.
        """
        with torch.autocast(y.device.type, enabled=False):
            if self.gains is None:
                out = self.codec(self._padded(y.float()))
                return _cropped(out["y_hat"], y.shape[-2:]), out["likelihoods"]
            drawn = torch.is_grad_enabled() and level is None
            gains = self.gains(self.gains.drawn(len(y)) if drawn else self._levels(level, y))
            out = self._gained_codec(self._padded(y.float()) * gains.gain, gains)
            return _cropped(out["y_hat"], y.shape[-2:]) * gains.inverse, out["likelihoods"]

    @torch.no_grad()
    def compress(self, y: Tensor, level: int | Sequence[int] | None = None) -> list[bytes]:
        """Return one string per image of y (B, C, H, W); needs the coder's tables (`update()`).

        Args:
            y: (B, C, H, W).
            level: as for `estimate`, or one for each image.

        Raises:
            BitstreamError: a latent larger than `max_positions`.
            ValueError: no tables.
            UserError: a y that is not finite.
        """
        self._padded_size(y.shape[-2:])
        if not torch.isfinite(y).all():
            raise UserError("the latent y holds infinities or NaN: there is nothing to send")
        sender = Sender(len(y))
        levels = None if self.gains is None else self._levels(level, y)
        self._transmit(self._current_transmission(), sender, y, levels)
        return sender.strings()

    @torch.no_grad()
    def decompress(self, strings: list[bytes], size: tuple[int, int], levels: Sequence[int] | None = None) -> Tensor:
        """Return y_hat (B, C, *size), float32, from the strings of B images with latents of `size` (H, W).

        Args:
            strings: one per image.
            size: of y.
            levels: one per image, of a model of variable rate.

        Raises:
            BitstreamError: strings that are not from `compress` with this model and size.
        """
        padded = self._padded_size(size)
        device = next(self.parameters()).device
        receiver = Receiver(strings, device)
        gains = None if self.gains is None else self.gains(torch.tensor(levels, device=device))
        y_hat = self._current_transmission()(receiver, len(strings), padded, None, gains)
        receiver.finish()
        return _cropped(y_hat, size) if gains is None else _cropped(y_hat, size) * gains.inverse

    def recorder(self) -> Callable[..., list[Call]]:
        """Return a function of a finite y (B, C, H, W) and, with variable rate, levels (B,), int64.

        It returns the calls that `compress` makes, as tensors to be exported.
        """
        transmission = self._current_transmission()

        def record(y: Tensor, levels: Tensor | None = None) -> list[Call]:
            recorder = Recorder()
            self._transmit(transmission, recorder, y, levels)
            return recorder.calls

        return record

    def level_of(self, rate: float | None) -> int | None:
        """Return the level of a rate in [0, 1]: None for a model of one rate, the middle one for no rate.

        Raises:
            UserError: a rate for a model that has one only, or outside of 0 to 1.
        """
        if self.gains is not None:
            return self.gains.level_of(DEFAULT_RATE if rate is None else rate)
        if rate is not None:
            raise UserError("this student has one rate: a rate can be chosen if entropy_model has `levels`")
        return None

    def edge_parameters(self) -> int:
        """Return the number of parameters that the device needs besides g_a."""
        return 0

    def _transmit(
        self, transmission: Callable[..., Tensor], end: Sender | Recorder, y: Tensor, levels: Tensor | None
    ) -> None:
        gains = None if levels is None or self.gains is None else self.gains(levels)
        padded = self._padded(y.float())
        gained = padded if gains is None else padded * gains.gain
        transmission(end, y.shape[0], tuple(padded.shape[-2:]), gained, gains)

    def _gained_codec(self, y: Tensor, gains: Gains) -> dict:
        """Run the codec on y times its gain; the factorized prior's densities depend on the gain."""
        return self.codec(y)

    def _levels(self, level: int | Sequence[int] | None, y: Tensor) -> Tensor:
        chosen = self.level_of(None) if level is None else level
        return torch.tensor(chosen, device=y.device).expand(len(y))

    def _padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-side // self.stride) * self.stride for side in size)
        if height * width > self.max_positions:
            taken = f"{type(self).__name__} codes at most {self.max_positions:,} positions"
            raise BitstreamError(f"a latent of {size[0]} x {size[1]} is too large: {taken}")
        return height, width

    def _padded(self, y: Tensor) -> Tensor:
        bottom, right = (-side % self.stride for side in y.shape[-2:])
        return F.pad(y, (0, right, 0, bottom), mode="replicate") if self.stride > 1 else y

    def _current_transmission(self) -> Callable[..., Tensor]:
        return self._derived.of(chain(self.parameters(), self.buffers()), lambda: self.transmission(self.codec))


def _cropped(y_hat: Tensor, size: tuple[int, int]) -> Tensor:
    return y_hat[..., : size[0], : size[1]]


class CodedModel(CompressionModel):
    """CompressAI's CompressionModel, able to load a state dict with coder tables of any size, with smaller tables.

    CompressAI resizes the model's tables only if they are empty.
    """

    def update(self, scale_table: Sequence[float] | None = None, force: bool = False, update_quantiles: bool = False):
        """Build the coder's tables, by default for scales from 0.11 to 64.

        CompressAI's default ends at 256. A quarter of it makes the Gaussians' tables a quarter as large, at finer
        steps. A symbol outside of its table is coded as an escape.
        """
        scales = get_scale_table(max=LARGEST_SCALE) if scale_table is None else scale_table
        return super().update(scales, force, update_quantiles)

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True):
        for module in self.modules():
            if isinstance(module, TableModel):
                for name in ("_quantized_cdf", "_offset", "_cdf_length"):
                    setattr(module, name, getattr(module, name).new_empty(0))
            if isinstance(module, GaussianConditional):
                module.scale_table = module.scale_table.new_empty(0)
        return super().load_state_dict(state_dict, strict)


class FactorizedPrior(EntropyModel):
    """Fully factorized prior (Balle et al., ICLR 2018, appendix 6.1): one learned density per channel.

    With levels, the densities of y times a gain follow from those of y, and every level has its own tables. A stream
    between two levels takes the tables of the nearer one.

    Args:
        latent_channels: channels of y.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    def __init__(self, latent_channels: int = 48, levels: Sequence[float] | None = None):
        super().__init__(latent_channels, levels)
        if self.gains is None:
            self.transmission = FactorizedTransmission
            self.codec = EntropyBottleneckLatentCodec(EntropyBottleneck(latent_channels))
        else:
            self.transmission = GainedTransmission
            self.codec = GainedBottleneckLatentCodec(latent_channels, self.gains)

    def _gained_codec(self, y: Tensor, gains: Gains) -> dict:
        return self.codec(y, gains.gain)


class Hyperprior(EntropyModel):
    """Base of the priors with a hyper latent z at a quarter of y's resolution, coded with a factorized prior.

    h_a and h_s are two residual blocks each: 48 x 28 x 28 gives z of hyper_channels x 7 x 7. With levels, h_a is
    given y times its gain, so z needs no gain of its own.
    """

    stride = HyperTransmission.stride

    def __init__(
        self,
        latent_channels: int,
        levels: Sequence[float] | None,
        y_codec: LatentCodec,
        h_a: nn.Module,
        h_s: nn.Module,
        hyper_channels: int,
    ):
        super().__init__(latent_channels, levels)
        hyper = HyperLatentCodec(EntropyBottleneck(hyper_channels), h_a, h_s)
        self.codec = HyperpriorLatentCodec({"y": y_codec, "hyper": hyper})

    def edge_parameters(self) -> int:
        """Return the number of parameters of h_a, h_s and the context model, if any."""
        return sum(p.numel() for name, p in self.codec.named_parameters() if "entropy_bottleneck" not in name)


def hyper_analysis(latent_channels: int, hyper_channels: int) -> nn.Sequential:
    """h_a: y (B, latent_channels, H, W) -> z (B, hyper_channels, H / 4, W / 4)."""
    return nn.Sequential(
        ResidualBlock(latent_channels, hyper_channels, stride=2, act_layer=nn.LeakyReLU),
        ResidualBlock(hyper_channels, hyper_channels, stride=2, act_layer=nn.LeakyReLU),
    )


def hyper_synthesis(hyper_channels: int, out_channels: int) -> nn.Sequential:
    """h_s: z_hat (B, hyper_channels, H / 4, W / 4) -> (B, out_channels, H, W)."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        ResidualBlock(hyper_channels, hyper_channels, act_layer=nn.LeakyReLU),
        nn.Upsample(scale_factor=2),
        ResidualBlock(hyper_channels, out_channels, act_layer=nn.LeakyReLU),
    )


class ScaleHyperprior(Hyperprior):
    """Scale hyperprior (Balle et al., ICLR 2018): z determines the scales of zero-mean Gaussians.

    Args:
        latent_channels: channels of y.
        hyper_channels: channels of z and of the hyper networks.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    transmission = ScaleTransmission

    def __init__(self, latent_channels: int = 48, hyper_channels: int = 32, levels: Sequence[float] | None = None):
        h_a = nn.Sequential(Magnitude(), *hyper_analysis(latent_channels, hyper_channels))
        h_s = hyper_synthesis(hyper_channels, latent_channels)
        super().__init__(
            latent_channels, levels, GaussianConditionalLatentCodec(chunks=("scales",)), h_a, h_s, hyper_channels
        )


class MeanScaleHyperprior(Hyperprior):
    """Mean-scale hyperprior without context model (Minnen et al., NeurIPS 2018): z determines scales and means.

    Args:
        latent_channels: channels of y.
        hyper_channels: channels of z and of the hyper networks.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    transmission = HyperTransmission

    def __init__(self, latent_channels: int = 48, hyper_channels: int = 32, levels: Sequence[float] | None = None):
        h_a = hyper_analysis(latent_channels, hyper_channels)
        h_s = hyper_synthesis(hyper_channels, 2 * latent_channels)
        super().__init__(latent_channels, levels, GaussianConditionalLatentCodec(), h_a, h_s, hyper_channels)


class JointAutoregressive(Hyperprior):
    """Joint autoregressive and hierarchical prior (Minnen et al., NeurIPS 2018): z and a 5x5 causal context.

    Encoder and decoder process the latent position by position. As in CompressAI, the forward pass rounds y, while the
    coder rounds its distance to the predicted mean. The two y_hat differ by at most one, so the validation during
    training, which uses the forward pass, estimates the test.

    Args:
        latent_channels: channels of y.
        hyper_channels: channels of z and of the hyper networks.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    transmission = RasterTransmission
    max_positions = 4096  # a 512 x 512 image; each position takes about a millisecond

    def __init__(self, latent_channels: int = 48, hyper_channels: int = 32, levels: Sequence[float] | None = None):
        y_codec = RasterScanLatentCodec(
            GaussianConditional(None),
            entropy_parameters(latent_channels),
            MaskedConv2d(latent_channels, 2 * latent_channels, 5, padding=2),
        )
        h_a = hyper_analysis(latent_channels, hyper_channels)
        h_s = hyper_synthesis(hyper_channels, 2 * latent_channels)
        super().__init__(latent_channels, levels, y_codec, h_a, h_s, hyper_channels)


class Checkerboard(Hyperprior):
    """Hyperprior with a checkerboard context (He et al., CVPR 2021): half the positions, then the other half.

    Args:
        latent_channels: channels of y.
        hyper_channels: channels of z and of the hyper networks.
        levels: lmbda of each level of a model of variable rate, falling; None for a model of one rate.
    """

    transmission = CheckerboardTransmission

    def __init__(self, latent_channels: int = 48, hyper_channels: int = 32, levels: Sequence[float] | None = None):
        y_codec = CheckerboardLatentCodec(
            {"y": GaussianConditionalLatentCodec()},
            entropy_parameters(latent_channels),
            CheckerboardMaskedConv2d(latent_channels, 2 * latent_channels, 5, padding=2),
        )
        h_a = hyper_analysis(latent_channels, hyper_channels)
        h_s = hyper_synthesis(hyper_channels, 2 * latent_channels)
        super().__init__(latent_channels, levels, y_codec, h_a, h_s, hyper_channels)


def entropy_parameters(latent_channels: int) -> nn.Sequential:
    """Map features of context and hyper latent, 2 * latent_channels each, to scales and means of y."""
    widths = [round(latent_channels * factor) for factor in (4, 10 / 3, 8 / 3, 2)]  # the widths of Minnen et al.
    layers = [nn.Conv2d(a, b, 1) for a, b in pairwise(widths)]
    return nn.Sequential(layers[0], nn.LeakyReLU(), layers[1], nn.LeakyReLU(), layers[2])
