"""The entropy bottleneck of a factorized prior with variable rate."""

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import LatentCodec
from torch import Tensor

from model.gains import GainUnits


class GainedBottleneck(EntropyBottleneck):
    """Densities of y, evaluated for y times a gain, and coder tables of every trained level.

    If y has the density p, then the rounded product of y and a gain has the probability that p gives to an interval of
    the width 1 / gain.

    Args:
        channels: of y.
        gains: the levels.
    """

    _offset: Tensor

    def __init__(self, channels: int, gains: GainUnits):
        super().__init__(channels)
        self._gains = (gains,)  # in a tuple, since the entropy model has registered its parameters already

    def forward(self, y: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rounded, in training noisy, values of y (B, C, H, W), times its gain already, and likelihoods.

        Args:
            y: (B, C, H, W).
            gain: (B, C, 1, 1).
        """
        medians = self.quantiles.detach()[:, :, 1:2] * gain
        y_hat = self.quantize(y, "noise" if self.training else "dequantize", medians)
        likelihood = self.likelihood_lower_bound(self._interval(y_hat, gain.expand_as(y_hat)))
        return y_hat, likelihood

    def _interval(self, y: Tensor, gain: Tensor) -> Tensor:
        """Return the probabilities of [y - 1/2, y + 1/2] / gain, (B, C, H, W)."""
        by_channel = (y.transpose(0, 1).flatten(1)[:, None], gain.transpose(0, 1).flatten(1)[:, None])
        likelihood, _, _ = self._scaled_likelihood(*by_channel)
        return likelihood.reshape(y.transpose(0, 1).shape).transpose(0, 1)

    def _scaled_likelihood(self, y: Tensor, gain: Tensor, stop_gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """As CompressAI's `_likelihood`, of y and gain (C, 1, N)."""
        lower, upper = (self._logits_cumulative((y + side) / gain, stop_gradient) for side in (-0.5, 0.5))
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper

    @torch.no_grad()
    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Build the tables: those of the channels at the first level, then at the second, and so on."""
        if self._offset.numel() > 0 and not force:
            return False
        if update_quantiles:
            self._update_quantiles()
        (gains,) = self._gains
        gain = gains(torch.tensor(gains.trained(), device=self.quantiles.device)).gain[..., 0, 0]
        low, medians, high = (self.quantiles[:, 0] * gain[..., None]).unbind(-1)
        minima, maxima = ((distance).ceil().int().clamp(min=0) for distance in (medians - low, high - medians))
        lengths = minima + maxima + 1
        longest = int(lengths.max())
        symbols = torch.arange(longest, device=gain.device) + (medians - minima)[..., None]
        tables = [
            self._scaled_likelihood(level[:, None], scale[:, None, None], stop_gradient=True)
            for level, scale in zip(symbols, gain, strict=True)
        ]
        pmf, lower, upper = (torch.cat(parts)[:, 0] for parts in zip(*tables, strict=True))
        tail_mass = torch.sigmoid(lower[:, :1]) + torch.sigmoid(-upper[:, -1:])
        self._offset = -minima.flatten()
        self._quantized_cdf = self._pmf_to_cdf(pmf, tail_mass, lengths.flatten(), longest)
        self._cdf_length = lengths.flatten() + 2
        return True


class GainedBottleneckLatentCodec(LatentCodec):
    """CompressAI's EntropyBottleneckLatentCodec for y times a gain.

    Args:
        channels: of y.
        gains: the levels.
    """

    def __init__(self, channels: int, gains: GainUnits):
        super().__init__()
        self.entropy_bottleneck = GainedBottleneck(channels, gains)

    def forward(self, y: Tensor, gain: Tensor) -> dict:
        """Return `y_hat` and `likelihoods`, as CompressAI's codecs do."""
        y_hat, likelihood = self.entropy_bottleneck(y, gain)
        return {"likelihoods": {"y": likelihood}, "y_hat": y_hat}
