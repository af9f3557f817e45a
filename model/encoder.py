"""Edge: the analysis transform g_a, the only network that the device runs (with a factorized prior)."""

from torch import nn

from model.layers import ResidualBlock


class ResidualEncoder(nn.Sequential):
    """g_a of the paper's released configs: three residual blocks of stride 2, ReLU, no normalisation.

    With the default channels 141,696 parameters and, at 224 x 224, 530.5 M multiply-accumulates.

    Args:
        channels: output channels of the three blocks; the last is the latent's.

    Shapes: x (B, 3, H, W) -> y (B, channels[-1], H / 8, W / 8).
    """

    def __init__(self, channels: tuple[int, int, int] = (48, 64, 48)):
        widths = (3, *channels)
        super().__init__(*(ResidualBlock(a, b, stride=2) for a, b in zip(widths, channels, strict=False)))
