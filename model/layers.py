"""What encoder, entropy model and decoder share."""

from torch import Tensor, nn


class Magnitude(nn.Module):
    """|x|: what h_a of a scale hyperprior sees, since scales do not depend on signs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with biases, no normalisation, and a skip that is 1x1 where shape changes.

    `x -> conv(stride) -> act -> conv -> act -> + skip(x)`: nothing follows the addition, so the output is not confined
    to the activation's range. The paper's released code lost the first activation to a bug; its sister repositories,
    and hence this block, have both.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution and of the skip.
        act_layer: activation without arguments; the paper has ReLU in the encoder, LeakyReLU in decoders.
        inner_activation: False leaves out the activation between the two convolutions, as the released code did.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        act_layer: type[nn.Module] = nn.ReLU,
        inner_activation: bool = True,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.act1 = act_layer() if inner_activation else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.act2 = act_layer()
        same_shape = stride == 1 and in_channels == out_channels
        self.skip = nn.Identity() if same_shape else nn.Conv2d(in_channels, out_channels, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # Sliced and not strided, which is the same for 1x1: with torch 2.15 on CPU the backward of a strided 1x1
        # convolution of three channels, channels last and in float32, writes where it must not (it crashes).
        skip = self.skip(x[..., :: self.stride, :: self.stride])
        return self.act2(self.conv2(self.act1(self.conv1(x)))) + skip
