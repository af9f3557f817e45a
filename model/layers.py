"""Building blocks shared by encoder, entropy model and decoder."""

from torch import Tensor, nn


class Magnitude(nn.Module):
    """|x|: the input of h_a in a scale hyperprior, whose scales do not depend on signs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with biases, no normalisation, and a skip, a 1x1 convolution if the shape changes.

    `x -> conv(stride) -> act -> conv -> act -> + skip(x)`: nothing follows the addition, so the output is not confined
    to the activation's range. A bug in the paper's released code drops the first activation; its sister repositories,
    and hence this block, have both.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution and of the skip.
        act_layer: activation class; the paper uses ReLU in the encoder and LeakyReLU in decoders.
        inner_activation: False leaves out the activation between the two convolutions, as the released code does.

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
        # Slicing is equivalent to a strided 1x1 convolution, whose backward crashes in torch 2.15 on CPU (three
        # channels, channels last, float32: it writes out of bounds).
        skip = self.skip(x[..., :: self.stride, :: self.stride])
        return self.act2(self.conv2(self.act1(self.conv1(x)))) + skip
