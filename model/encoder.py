"""Edge: the analysis transform g_a, the only network on the device if the prior is factorized."""

from compressai.layers import GDN1
from torch import nn

from model.layers import ResidualBlock


class ResidualEncoder(nn.Sequential):
    """g_a of the paper's released configs: three residual blocks of stride 2, ReLU, no normalisation.

    141,696 parameters with the default channels, and 530.5 M multiply-accumulates at 224 x 224.

    Args:
        channels: output channels of the three blocks; the last is the latent's.
        inner_activation: False leaves out the blocks' inner activation, as the released code does.

    Shapes: x (B, 3, H, W) -> y (B, channels[-1], H / 8, W / 8), rounded up.
    """

    def __init__(self, channels: tuple[int, int, int] = (48, 64, 48), inner_activation: bool = True):
        widths = (3, *channels)
        super().__init__(
            *(
                ResidualBlock(a, b, stride=2, inner_activation=inner_activation)
                for a, b in zip(widths, channels, strict=False)
            )
        )


class GDNEncoder(nn.Sequential):
    """g_a of Entropic Student (Matsubara et al., WACV 2022): three convolutions without biases, GDN1 in between.

    138,672 parameters with the default channels, about as many as `ResidualEncoder`.

    Args:
        channels: output channels of the three convolutions; the last is the latent's.

    Shapes: x (B, 3, H, W) -> y (B, channels[-1], H / 4 - 1, W / 4 - 1), H and W multiples of 4.
    """

    def __init__(self, channels: tuple[int, int, int] = (96, 48, 24)):
        first, second, last = channels
        super().__init__(
            nn.Conv2d(3, first, 5, stride=2, padding=2, bias=False),
            GDN1(first),
            nn.Conv2d(first, second, 5, stride=2, padding=2, bias=False),
            GDN1(second),
            nn.Conv2d(second, last, 2, bias=False),
        )
