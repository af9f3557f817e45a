"""Server: the synthesis transform g_s up to the backbone's feature at the cut, one blueprint per backbone family."""

from timm.models.resnet import BasicBlock
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn
from torchvision.ops import Permute

from model.layers import ResidualBlock

NCHW_TO_NHWC = (0, 2, 3, 1)
NHWC_TO_NCHW = (0, 3, 1, 2)


class ResNetDecoder(nn.Sequential):
    """Blueprint for ResNets, of their own basic blocks. The paper's was never released: this one is ours.

    Args:
        latent_channels: channels of y_hat.
        width: channels of the trunk.
        out_channels: channels of h at the cut.
        depth: basic blocks in the trunk.

    Shapes: y_hat (B, latent_channels, H, W) -> h_hat (B, out_channels, H, W), not negative, like a ResNet stage.
    """

    def __init__(self, latent_channels: int = 48, width: int = 256, out_channels: int = 512, depth: int = 2):
        project = nn.Sequential(nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        super().__init__(
            ResidualBlock(latent_channels, width, act_layer=nn.LeakyReLU),
            *(BasicBlock(width, width) for _ in range(depth)),
            BasicBlock(width, out_channels, downsample=project),
        )


class SwinDecoder(nn.Module):
    """Blueprint for Swin transformers, as in the paper's released configs (2,058,974 parameters with the defaults).

    Residual block; two Swin blocks with a shortcut around them; residual block to twice the width; two more Swin
    blocks; patch merging to the cut's width; LayerNorm.

    Args:
        latent_channels: channels of y_hat.
        width: channels of the first Swin blocks, half those of the second.
        out_channels: channels of h at the cut.
        feature_size: height and width of y_hat.
        window_size: of all Swin blocks.
        num_heads: of the first and of the second pair of Swin blocks.

    Shapes: y_hat (B, latent_channels, S, S) -> h_hat (B, out_channels, S / 2, S / 2) with S = feature_size.
    """

    def __init__(
        self,
        latent_channels: int = 48,
        width: int = 96,
        out_channels: int = 384,
        feature_size: int = 28,
        window_size: int = 7,
        num_heads: tuple[int, int] = (3, 4),
    ):
        super().__init__()
        size = (feature_size, feature_size)
        self.embed = ResidualBlock(latent_channels, width, act_layer=nn.LeakyReLU)
        self.stage = nn.Sequential(
            Permute(list(NCHW_TO_NHWC)),
            *_swin_blocks(width, size, num_heads[0], window_size, drop_path=(0.0, 0.05)),
            Permute(list(NHWC_TO_NCHW)),
        )
        self.widen = ResidualBlock(width, 2 * width, act_layer=nn.LeakyReLU)
        self.reconstruct = nn.Sequential(
            Permute(list(NCHW_TO_NHWC)),
            *_swin_blocks(2 * width, size, num_heads[1], window_size, drop_path=(0.0, 0.0)),
            PatchMerging(2 * width, out_channels),
            nn.LayerNorm(out_channels),
            Permute(list(NHWC_TO_NCHW)),
        )

    def forward(self, y_hat: Tensor) -> Tensor:
        features = self.embed(y_hat)
        return self.reconstruct(self.widen(self.stage(features) + features))


def _swin_blocks(
    width: int, size: tuple[int, int], num_heads: int, window_size: int, drop_path: tuple[float, float]
) -> list[SwinTransformerBlock]:
    shifts = (0, window_size // 2)
    return [
        SwinTransformerBlock(width, size, num_heads, window_size=window_size, shift_size=shift, drop_path=rate)
        for shift, rate in zip(shifts, drop_path, strict=True)
    ]
