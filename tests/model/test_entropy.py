import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from model.coding.bitstream import BitstreamError
from model.coding.channel import Sender
from model.entropy import (
    Checkerboard,
    CodedModel,
    FactorizedPrior,
    JointAutoregressive,
    MeanScaleHyperprior,
    ScaleHyperprior,
)

PRIORS = [FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior, JointAutoregressive, Checkerboard]


class Holder(CodedModel):
    """CompressAI's own update() and aux_loss() around one entropy model."""

    def __init__(self, entropy_model: nn.Module):
        super().__init__()
        self.entropy_model = entropy_model


@pytest.fixture(params=PRIORS)
def entropy_model(request):
    model = request.param(latent_channels=12).eval()
    Holder(model).update(force=True, update_quantiles=True)
    return model


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (7, 9), (28, 28)])
def test_decoded_latent_is_the_quantised_one_exactly(entropy_model, size):
    y = 4 * torch.randn(2, 12, *size)
    with torch.no_grad():
        y_hat = entropy_model.decompress(entropy_model.compress(y), size)
    assert (y_hat - y).abs().max() <= 0.5 + 1e-5
    padded = entropy_model._padded(y)
    sent = entropy_model._current_transmission()(Sender(2), 2, padded.shape[-2:], padded)
    assert torch.equal(y_hat, sent[..., : size[0], : size[1]])


def test_decoded_latent_is_that_of_the_float_pass(entropy_model):
    y = (4 * torch.randn(2, 12, 8, 8) * 2**10).round() / 2**10  # fixed point holds it, and ties stay ties
    with torch.no_grad():
        y_hat, expected = entropy_model.decompress(entropy_model.compress(y), (8, 8)), entropy_model(y)
    if isinstance(entropy_model, FactorizedPrior | ScaleHyperprior):
        assert torch.equal(y_hat, expected)
    elif isinstance(entropy_model, JointAutoregressive):  # it rounds around zero, the coder around means
        assert (y_hat - expected).abs().max() <= 1
    else:
        assert ((y_hat - expected).abs() < 1e-3).float().mean() > 0.9  # means are rounded, which may tip a symbol


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("threads", [1, 2])
def test_strings_and_latents_do_not_depend_on_batch_threads_or_memory_format(entropy_model, threads, memory_format):
    y = 4 * torch.randn(3, 12, 4, 8)
    strings = entropy_model.compress(y)
    y_hat = entropy_model.decompress(strings, (4, 8))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        entropy_model.to(memory_format=memory_format)
        for image in range(3):
            alone = y[image : image + 1].to(memory_format=memory_format)
            assert entropy_model.compress(alone) == strings[image : image + 1]
            assert torch.equal(entropy_model.decompress(strings[image : image + 1], (4, 8))[0], y_hat[image])
    finally:
        torch.set_num_threads(before)


def test_bytes_agree_with_the_likelihoods(entropy_model):
    y = 2 * torch.randn(4, 12, 28, 28)
    fit(entropy_model, y)
    with torch.no_grad():
        bits = sum(-torch.log2(likelihood).sum() for likelihood in entropy_model.estimate(y)[1].values())
        sent = 8 * sum(map(len, entropy_model.compress(y)))
    assert abs(sent - bits) < 0.01 * bits + 4 * 8 * 4


def test_large_and_escaped_symbols_pass(entropy_model):
    y = torch.randn(2, 12, 8, 8)
    y[0, 3, 2, 5], y[0, 3, 2, 6], y[1, 0, 0, 0] = 4000.0, -4000.0, 900.0
    y_hat = entropy_model.decompress(entropy_model.compress(y), (8, 8))
    assert (y_hat - y).abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_not_sent(entropy_model, value):
    y = torch.randn(1, 12, 8, 8)
    y[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="infinities or NaN"):
        entropy_model.compress(y)


@pytest.mark.parametrize("prior", PRIORS)
def test_coding_without_tables_is_refused(prior):
    with pytest.raises(ValueError, match=r"update\(\)"):
        prior(12).compress(torch.randn(1, 12, 8, 8))


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_hostile_strings_give_a_bounded_latent_or_an_error(entropy_model, strings):
    try:
        y_hat = entropy_model.decompress(strings, (4, 8))
    except BitstreamError:
        return
    assert y_hat.shape == (len(strings), 12, 4, 8)
    assert torch.isfinite(y_hat).all() and y_hat.abs().max() < 2**14


def test_a_latent_of_too_many_positions_is_neither_sent_nor_decoded(entropy_model):
    size = (1, entropy_model.max_positions + (entropy_model.stride == 1))  # too large with its padding, if it has any
    with pytest.raises(BitstreamError, match=r"is too large: .* codes at most"):
        entropy_model.decompress([b""], size)
    with pytest.raises(BitstreamError, match="is too large"):
        entropy_model.compress(torch.zeros(1, 48, *size))


def test_coding_follows_the_weights(entropy_model):
    y = 4 * torch.randn(1, 12, 8, 8)
    before = entropy_model.compress(y)
    with torch.no_grad():
        for parameter in entropy_model.parameters():
            parameter.mul_(1.5)
    Holder(entropy_model).update(force=True, update_quantiles=True)
    assert entropy_model.compress(y) != before


def test_padding_is_counted_and_cut_off_again(entropy_model):
    y = torch.randn(1, 12, 7, 9)
    with torch.no_grad():
        y_hat, likelihoods = entropy_model.estimate(y)
    assert y_hat.shape == y.shape
    assert likelihoods["y"].shape[2:] == ((7, 9) if isinstance(entropy_model, FactorizedPrior) else (8, 12))


@pytest.mark.parametrize("tables_first", [True, False])
def test_weights_load_with_and_without_tables_in_either_order(entropy_model, tables_first):
    other = type(entropy_model)(latent_channels=12).eval()
    if tables_first:
        Holder(other).update()
    Holder(other).load_state_dict(Holder(entropy_model).state_dict())
    if not tables_first:
        Holder(other).update()
    y = 4 * torch.randn(1, 12, 8, 8)
    with torch.no_grad():
        strings = entropy_model.compress(y)
        assert other.compress(y) == strings
        assert torch.equal(other.decompress(strings, (8, 8)), entropy_model.decompress(strings, (8, 8)))


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


@pytest.mark.parametrize("prior", PRIORS)
def test_networks_beside_the_densities_count_as_edge_parameters(prior):
    model = prior(48)
    densities = sum(p.numel() for name, p in model.named_parameters() if "entropy_bottleneck" in name)
    assert model.edge_parameters() == sum(p.numel() for p in model.parameters()) - densities
    assert (model.edge_parameters() == 0) == (prior is FactorizedPrior)


def test_hyper_latent_is_sized_for_the_papers_latent():
    seen = []
    model = MeanScaleHyperprior().eval()
    model.codec.hyper.h_a.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        model(torch.randn(1, 48, 28, 28))
    assert seen == [(1, 32, 7, 7)]


def test_context_looks_only_at_what_is_decoded_already():
    model = JointAutoregressive(12)
    assert model.codec.y.context_prediction.mask[0, 0, 2].tolist() == [1, 1, 0, 0, 0]
    assert model.codec.y.context_prediction.mask[0, 0, 3:].sum() == 0
