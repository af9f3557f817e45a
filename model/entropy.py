"""Channel: entropy models on CompressAI's latent codecs; y -> bytes -> y_hat."""

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import (
    EntropyBottleneckLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
    LatentCodec,
)
from torch import Tensor, nn

from model.layers import ResidualBlock


class EntropyModel(nn.Module):
    """Base of the priors: holds the latent codec and keeps probabilities in float32 under autocast.

    A forward hook on `entropy_model.codec` sees the codec's output, `{"y_hat": ..., "likelihoods": {"y": ...}}`: that
    is how the rate reaches torchdistill's losses. In training y_hat is y plus uniform noise, in evaluation it is
    rounded.
    """

    codec: LatentCodec

    def forward(self, y: Tensor) -> Tensor:
        """Returns y_hat, of y's shape (B, C, H, W)."""
        with torch.autocast(y.device.type, enabled=False):
            return self.codec(y.float())["y_hat"]

    def compress(self, y: Tensor) -> list[tuple[bytes, ...]]:
        """Returns one tuple of strings (y, then z where there is a hyper latent) per image; needs `update()` first."""
        return list(zip(*self.codec.compress(y)["strings"], strict=True))

    def decompress(self, strings: list[tuple[bytes, ...]], size: tuple[int, int]) -> Tensor:
        """Returns y_hat (B, C, *size) from the strings of B images whose latents are all `size` (H, W)."""
        columns = [list(column) for column in zip(*strings, strict=True)]
        return self.codec.decompress(columns, self._shape(size))["y_hat"]

    def edge_parameters(self) -> int:
        """Returns the parameters of the networks that the device must run beside g_a."""
        return 0

    def _shape(self, size: tuple[int, int]) -> tuple[int, int] | dict[str, tuple[int, int]]:
        return size


class FactorizedPrior(EntropyModel):
    """Fully factorized prior (Balle et al., ICLR 2018, appendix 6.1): one learned density per channel.

    Args:
        latent_channels: channels of y.
    """

    def __init__(self, latent_channels: int = 48):
        super().__init__()
        self.codec = EntropyBottleneckLatentCodec(EntropyBottleneck(latent_channels))


class MeanScaleHyperprior(EntropyModel):
    """Mean-scale hyperprior without context model (Minnen et al., NeurIPS 2018).

    h_a and h_s are two residual blocks each, so that z is at a quarter of y's resolution (rounded up).

    Args:
        latent_channels: channels of y.
        hyper_channels: channels of z and of the hyper networks.
    """

    def __init__(self, latent_channels: int = 48, hyper_channels: int = 32):
        super().__init__()
        h_a = nn.Sequential(
            ResidualBlock(latent_channels, hyper_channels, stride=2, act_layer=nn.LeakyReLU),
            ResidualBlock(hyper_channels, hyper_channels, stride=2, act_layer=nn.LeakyReLU),
        )
        h_s = nn.Sequential(
            nn.Upsample(scale_factor=2),
            ResidualBlock(hyper_channels, hyper_channels, act_layer=nn.LeakyReLU),
            nn.Upsample(scale_factor=2),
            ResidualBlock(hyper_channels, 2 * latent_channels, act_layer=nn.LeakyReLU),
        )
        hyper = HyperLatentCodec(EntropyBottleneck(hyper_channels), h_a, h_s)
        self.codec = HyperpriorLatentCodec({"y": GaussianConditionalLatentCodec(), "hyper": hyper})

    def edge_parameters(self) -> int:
        hyper = self.codec.hyper
        return sum(p.numel() for network in (hyper.h_a, hyper.h_s) for p in network.parameters())

    def _shape(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        return {"y": size, "hyper": tuple(-(-side // 4) for side in size)}
