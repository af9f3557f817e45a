import pytest
import torch

from model.decoder import ConvNeXtDecoder, GDNDecoder, ResNetDecoder, SwinDecoder, ViTDecoder


def test_swin_decoder_has_the_papers_parameters():
    decoder = SwinDecoder()
    assert sum(p.numel() for p in decoder.parameters()) == 2_058_974
    assert sum(p.numel() for p in decoder.embed.parameters()) == 129_312
    assert sum(p.numel() for p in decoder.stage.parameters()) == 224_694
    assert sum(p.numel() for p in decoder.widen.parameters()) == 516_672
    assert sum(p.numel() for p in decoder.reconstruct.parameters()) == 1_188_296


def test_swin_decoder_halves_the_resolution():
    decoder = SwinDecoder(width=24, out_channels=40, feature_size=8, window_size=4, num_heads=(2, 4))
    assert decoder(torch.randn(2, 48, 8, 8)).shape == (2, 40, 4, 4)


def test_resnet_decoder_keeps_the_resolution_and_is_not_negative():
    h_hat = ResNetDecoder(width=32, out_channels=40)(torch.randn(2, 48, 7, 9))
    assert h_hat.shape == (2, 40, 7, 9)
    assert h_hat.min() == 0 < h_hat.max()


@pytest.mark.parametrize(
    ("decoder", "parameters", "shape"),
    [
        (ResNetDecoder, 2_091_584, (512, 28, 28)),
        (ConvNeXtDecoder, 2_003_200, (256, 28, 28)),
        (ViTDecoder, 1_871_424, (197, 384)),
    ],
)
def test_blueprints_of_ours_are_about_as_large_as_the_papers(decoder, parameters, shape):
    decoder = decoder().eval()
    assert sum(p.numel() for p in decoder.parameters()) == parameters
    assert abs(parameters - 2_058_974) < 0.1 * 2_058_974
    with torch.no_grad():
        assert decoder(torch.randn(1, 48, 28, 28)).shape == (1, *shape)


def test_resnet_decoder_ends_like_small_resnets_where_asked():
    h_hat = ResNetDecoder(width=32, out_channels=40, bottleneck=False)(torch.randn(2, 48, 7, 9))
    assert h_hat.shape == (2, 40, 7, 9)
    assert h_hat.min() == 0 < h_hat.max()


def test_vit_decoder_gives_every_prefix_token():
    decoder = ViTDecoder(width=24, out_channels=36, feature_size=4, prefix_tokens=2, num_heads=2)
    assert decoder(torch.randn(2, 48, 8, 8)).shape == (2, 18, 36)


def test_entropic_students_decoder_meets_the_first_stage_of_a_resnet():
    assert GDNDecoder()(torch.randn(1, 24, 55, 55)).shape == (1, 256, 56, 56)
