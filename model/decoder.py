"""Server: the synthesis transform g_s up to the backbone's feature at the cut, one blueprint per backbone family."""

import torch
from compressai.layers import GDN1
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.ops import Permute

from model.layers import ResidualBlock

NCHW_TO_NHWC = (0, 2, 3, 1)
NHWC_TO_NCHW = (0, 3, 1, 2)


class ResNetDecoder(nn.Sequential):
    """Blueprint for ResNets, built from their own blocks. The paper's was never released; this one is ours.

    Residual block, basic blocks, and a last block of the backbone's kind to the cut's width; 2,091,584 parameters with
    the defaults, which are for ResNet-50, -101 and -152.

    Args:
        latent_channels: channels of y_hat.
        width: channels of the trunk.
        out_channels: channels of h at the cut.
        depth: basic blocks in the trunk.
        bottleneck: make the last block a bottleneck, as in ResNets from 50 layers on; otherwise a basic block.

    Shapes: y_hat (B, latent_channels, H, W) -> h_hat (B, out_channels, H, W), not negative, like a ResNet stage.
    """

    def __init__(
        self,
        latent_channels: int = 48,
        width: int = 192,
        out_channels: int = 512,
        depth: int = 2,
        bottleneck: bool = True,
    ):
        project = nn.Sequential(nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        last = Bottleneck if bottleneck else BasicBlock
        super().__init__(
            ResidualBlock(latent_channels, width, act_layer=nn.LeakyReLU),
            *(BasicBlock(width, width) for _ in range(depth)),
            last(width, out_channels // last.expansion, downsample=project),
        )


class ConvNeXtDecoder(nn.Sequential):
    """Blueprint for ConvNeXts, built from their own blocks. The paper's was never released; this one is ours.

    Residual block, ConvNeXt blocks, 1x1 convolution to the cut's width; 2,003,200 parameters with the defaults, which
    are for ConvNeXt-B.

    Args:
        latent_channels: channels of y_hat.
        width: channels of the trunk.
        out_channels: channels of h at the cut.
        depth: ConvNeXt blocks.

    Shapes: y_hat (B, latent_channels, H, W) -> h_hat (B, out_channels, H, W).
    """

    def __init__(self, latent_channels: int = 48, width: int = 192, out_channels: int = 256, depth: int = 5):
        super().__init__(
            ResidualBlock(latent_channels, width, act_layer=nn.LeakyReLU),
            *(ConvNeXtBlock(width, ls_init_value=None) for _ in range(depth)),
            nn.Conv2d(width, out_channels, 1),
        )


class ViTDecoder(nn.Module):
    """Blueprint for vision transformers, built from their own blocks. The paper has none; this one is ours.

    Residual block of stride 2, learned positions and prefix tokens, transformer blocks, LayerNorm and a linear layer to
    the backbone's width; 1,871,424 parameters with the defaults, which are for DeiT-S.

    Args:
        latent_channels: channels of y_hat.
        width: channels of the trunk.
        out_channels: channels of h, the backbone's embedding.
        feature_size: height and width of the backbone's grid of patches, half those of y_hat.
        prefix_tokens: tokens in front of the patches' (the class token; one more in distilled DeiTs).
        depth: transformer blocks.
        num_heads: of each block.

    Shapes: y_hat (B, latent_channels, 2 S, 2 S) -> h_hat (B, prefix_tokens + S * S, out_channels), S = feature_size.
    """

    def __init__(
        self,
        latent_channels: int = 48,
        width: int = 192,
        out_channels: int = 384,
        feature_size: int = 14,
        prefix_tokens: int = 1,
        depth: int = 3,
        num_heads: int = 3,
    ):
        super().__init__()
        self.embed = ResidualBlock(latent_channels, width, stride=2, act_layer=nn.LeakyReLU)
        self.prefix = nn.Parameter(torch.zeros(1, prefix_tokens, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, feature_size**2, width))
        blocks = (Block(width, num_heads, qkv_bias=True) for _ in range(depth))
        self.reconstruct = nn.Sequential(*blocks, nn.LayerNorm(width), nn.Linear(width, out_channels))

    def forward(self, y_hat: Tensor) -> Tensor:
        patches = self.embed(y_hat).flatten(2).transpose(1, 2) + self.position
        return self.reconstruct(torch.cat([self.prefix.expand(len(patches), -1, -1), patches], dim=1))


class GDNDecoder(nn.Sequential):
    """Entropic Student's decoder to the first stage of a ResNet (Matsubara et al., WACV 2022): 2x2 convolutions.

    Args:
        latent_channels: channels of y_hat.
        widths: channels after the first and after the second convolution.
        out_channels: channels of h at the cut.

    Shapes: y_hat (B, latent_channels, H, W) -> h_hat (B, out_channels, H + 1, W + 1).
    """

    def __init__(self, latent_channels: int = 24, widths: tuple[int, int] = (512, 256), out_channels: int = 256):
        first, second = widths
        super().__init__(
            nn.Conv2d(latent_channels, first, 2, padding=1, bias=False),
            GDN1(first, inverse=True),
            nn.Conv2d(first, second, 2, bias=False),
            GDN1(second, inverse=True),
            nn.Conv2d(second, out_channels, 2, padding=1, bias=False),
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
