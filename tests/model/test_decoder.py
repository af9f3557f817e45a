import torch

from model.decoder import ResNetDecoder, SwinDecoder


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
