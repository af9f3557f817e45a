import torch

from model.encoder import GDNEncoder, ResidualEncoder


def test_main_setting_has_the_papers_parameters_and_stride():
    encoder = ResidualEncoder()
    assert sum(p.numel() for p in encoder.parameters()) == 141_696
    assert [sum(p.numel() for p in block.parameters()) for block in encoder] == [22_320, 67_776, 51_600]
    assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 48, 28, 28)


def test_inner_activation_makes_the_block_nonlinear_between_its_convolutions():
    block = ResidualEncoder()[2]
    x = torch.randn(1, 64, 8, 8)
    expected = block.conv2(block.conv1(x).relu()).relu() + block.skip(x[..., ::2, ::2])
    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)


def test_published_form_lacks_the_inner_activation_alone():
    published, ours = ResidualEncoder(inner_activation=False), ResidualEncoder()
    published.load_state_dict(ours.state_dict())
    block = published[2]
    x = torch.randn(1, 64, 8, 8)
    expected = block.conv2(block.conv1(x)).relu() + block.skip(x[..., ::2, ::2])
    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)
    assert not torch.equal(block(x), ours[2](x))


def test_entropic_students_encoder_has_its_parameters_and_latent():
    encoder = GDNEncoder()
    assert sum(p.numel() for p in encoder.parameters()) == 138_672
    assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 24, 55, 55)
