import pytest
import torch
from compressai.models import CompressionModel
from torch import nn

from model.entropy import FactorizedPrior, MeanScaleHyperprior


class Holder(CompressionModel):
    """CompressAI's own update() and aux_loss() around one entropy model."""

    def __init__(self, entropy_model: nn.Module):
        super().__init__()
        self.entropy_model = entropy_model


@pytest.fixture(params=[FactorizedPrior, MeanScaleHyperprior])
def entropy_model(request):
    model = request.param(latent_channels=12).eval()
    Holder(model).update(force=True, update_quantiles=True)
    return model


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (28, 28)])
def test_decoded_latent_is_the_quantised_one_exactly(entropy_model, size):
    y = 4 * torch.randn(3, 12, *size)
    with torch.no_grad():
        y_hat = entropy_model.decompress(entropy_model.compress(y), size)
        assert torch.equal(y_hat, entropy_model(y))
    assert (y_hat - y).abs().max() <= 0.5 + 1e-5


def test_strings_are_per_image_and_independent_of_the_batch(entropy_model):
    y = 4 * torch.randn(3, 12, 8, 8)
    with torch.no_grad():
        assert entropy_model.compress(y)[1:2] == entropy_model.compress(y[1:2])


def test_bytes_agree_with_the_likelihoods(entropy_model):
    y = 2 * torch.randn(4, 12, 28, 28)
    fit(entropy_model, y)
    with torch.no_grad():
        likelihoods = entropy_model.codec(y)["likelihoods"]
        bits = sum(-torch.log2(likelihood).sum() for likelihood in likelihoods.values())
        sent = 8 * sum(len(string) for strings in entropy_model.compress(y) for string in strings)
    assert abs(sent - bits) < 0.03 * bits + 4 * 2 * 8 * 8


def fit(entropy_model: nn.Module, y: torch.Tensor) -> None:
    """Fits the densities to y: far from it likelihoods end at their lower bound, which the coder does not have."""
    optimizer = torch.optim.Adam(entropy_model.parameters(), lr=1e-2)
    entropy_model.train()
    for _ in range(100):
        optimizer.zero_grad()
        sum(-torch.log2(p).sum() for p in entropy_model.codec(y)["likelihoods"].values()).backward()
        optimizer.step()
    Holder(entropy_model.eval()).update(force=True, update_quantiles=True)


def test_noise_in_training_stays_within_half_a_step():
    model = FactorizedPrior(12).train()
    y = torch.randn(2, 12, 8, 8)
    noise = model(y) - y
    assert 0.4 < noise.abs().max() <= 0.5


def test_aux_loss_reaches_the_quantiles_and_rate_reaches_nothing_of_them(entropy_model):
    holder = Holder(entropy_model).train()
    holder.aux_loss().backward()
    reached = {name for name, p in holder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached and all(name.endswith("quantiles") for name in reached)

    holder.zero_grad(set_to_none=True)
    y = torch.randn(2, 12, 8, 8, requires_grad=True)
    rate = sum(-torch.log2(p).sum() for p in entropy_model.codec(y)["likelihoods"].values())
    rate.backward()
    assert all(p.grad is None for name, p in holder.named_parameters() if name.endswith("quantiles"))
    assert y.grad.abs().sum() > 0


def test_probabilities_stay_in_float32_under_autocast():
    model = FactorizedPrior(12).eval()
    y = torch.randn(2, 12, 8, 8)
    expected = model.codec(y)["likelihoods"]["y"]
    seen = []
    model.codec.register_forward_hook(lambda module, inputs, output: seen.append(output["likelihoods"]["y"]))
    with torch.autocast("cpu", torch.bfloat16):
        model(y)
    assert torch.equal(seen[0], expected)


def test_hyper_networks_count_as_edge_parameters():
    model = MeanScaleHyperprior(12, hyper_channels=8)
    assert FactorizedPrior(12).edge_parameters() == 0
    networks = (model.codec.hyper.h_a, model.codec.hyper.h_s)
    assert model.edge_parameters() == sum(p.numel() for network in networks for p in network.parameters())
