"""Gain units: levels, interpolation, and streams of one model at any rate."""

import math

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from misc.errors import UserError
from model import entropy
from model.coding.bitstream import BitstreamError, pack, unpack
from model.encoder import ResidualEncoder
from model.gained_bottleneck import GainedBottleneck
from model.gains import STEPS, GainUnits
from model.halves import EdgeHalf, ServerHalf, highest_within

LEVELS = [0.4, 0.1, 0.05]
CHANNELS = 4
PRIORS = ("FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior", "JointAutoregressive", "Checkerboard")


def edge_of(prior: str, encoder: nn.Module | None = None, levels: list[float] | None = LEVELS) -> EdgeHalf:
    torch.manual_seed(0)
    extra = {} if prior == "FactorizedPrior" else {"hyper_channels": CHANNELS}
    edge = EdgeHalf(encoder or nn.Identity(), getattr(entropy, prior)(CHANNELS, **extra, levels=levels)).eval()
    with torch.no_grad():
        for name, parameter in edge.named_parameters():
            if "matrices" in name:
                parameter.add_(1.0)
            elif "gains" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    edge.update(scale_table=[0.11, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0, 8.0, 16.0], force=True, update_quantiles=True)
    return edge


@pytest.fixture(params=PRIORS)
def edge(request) -> EdgeHalf:
    return edge_of(request.param)


def server_of(edge: EdgeHalf) -> ServerHalf:
    return ServerHalf(edge.entropy_model, nn.Identity(), nn.Identity(), edge.fingerprint())


def test_initial_steps_are_the_roots_of_lmbda():
    gains = GainUnits(LEVELS, 2)(torch.tensor([0, 16, 32]))
    assert gains.lmbda.tolist() == pytest.approx(LEVELS)
    ratio = gains.gain[1] / gains.gain[0]
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.sqrt(0.4 / 0.1)))
    torch.testing.assert_close(gains.gain * gains.inverse, torch.ones(3, 2, 1, 1))


def test_between_two_levels_all_is_geometric():
    units = GainUnits(LEVELS, 3)
    with torch.no_grad():
        units.log_gain.normal_()
        units.log_inverse.normal_()
    low, middle, high = units(torch.tensor([16, 24, 32])).gain
    torch.testing.assert_close(middle, (low * high).sqrt())
    low, middle, high = units(torch.tensor([0, 4, 16])).inverse
    torch.testing.assert_close(middle, low**0.75 * high**0.25)
    assert units(torch.tensor([0, 7, 8, 23, 24, 32])).nearest.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("levels", [[0.1], [0.1, 0.2], [0.1, 0.1], [0.1, 0.0], [2.0 - k / 10 for k in range(17)]])
def test_levels_that_make_no_sense_are_refused(levels):
    with pytest.raises(UserError, match="levels"):
        GainUnits(levels, 4)


@given(st.floats(0, 1))
def test_level_of_a_rate(rate):
    units = GainUnits(LEVELS, 1)
    assert abs(units.level_of(rate) / units.last - rate) <= 0.5 / units.last
    assert units.level_of(0) == 0 and units.level_of(1) == units.last == 2 * STEPS


@pytest.mark.parametrize("rate", [-0.01, 1.01, math.nan])
def test_rates_outside_are_refused(rate):
    with pytest.raises(UserError, match="smallest streams"):
        GainUnits(LEVELS, 1).level_of(rate)


def test_every_level_decodes_and_says_so(edge):
    y, server = 4 * torch.randn(2, CHANNELS, 5, 6), server_of(edge)
    sizes = []
    for level in (0, 5, 16, 27, 32):
        streams = edge.encode(y, level)
        y_hat = edge.entropy_model(y, level)
        assert {unpack(stream).level for stream in streams} == {level}
        inverse = edge.entropy_model.gains(torch.tensor([level])).inverse
        assert ((server.latents(streams) - y_hat) / inverse).abs().max() <= 1 + 1e-4
        assert {unpack(stream).fingerprint for stream in streams} == {edge.fingerprint()}
        sizes.append(sum(map(len, streams)))
    assert sizes[0] < sizes[2] < sizes[4]


def test_a_batch_may_mix_levels(edge):
    y, server = 4 * torch.randn(1, CHANNELS, 5, 6), server_of(edge)
    streams = [edge.encode(y, level)[0] for level in (3, 16, 32)]
    alone = torch.cat([server.latents([stream]) for stream in streams])
    assert torch.equal(server.latents(streams), alone)


def test_default_is_the_middle_level_in_evaluation(edge):
    y = torch.randn(1, CHANNELS, 4, 4)
    assert edge.encode(y) == edge.encode(y, 16)
    with torch.no_grad():
        assert torch.equal(edge.entropy_model(y), edge.entropy_model(y, 16))


@pytest.mark.parametrize("is_frozen", [False, True])
def test_training_draws_a_level_for_each_image(is_frozen):
    model = edge_of("FactorizedPrior").entropy_model.train(not is_frozen).requires_grad_(not is_frozen)
    seen = []
    model.gains.register_forward_hook(lambda module, inputs, output: seen.extend(inputs[0].tolist()))
    model(torch.randn(200, CHANNELS, 2, 2))
    assert set(seen) == {0, 16, 32} and len(seen) == 200


def test_levels_are_drawn_by_the_inverse_root_of_lmbda():
    torch.manual_seed(0)
    drawn = GainUnits(LEVELS, CHANNELS).drawn(100_000)
    weights = torch.tensor(LEVELS) ** -0.5
    frequencies = torch.bincount(drawn // STEPS, minlength=3) / len(drawn)
    assert torch.equal(drawn % STEPS, torch.zeros_like(drawn))
    assert torch.allclose(frequencies, weights / weights.sum(), atol=0.01)


def test_one_rate_and_variable_rate_do_not_mix():
    one, variable = edge_of("FactorizedPrior", levels=None), edge_of("FactorizedPrior")
    y = torch.randn(1, CHANNELS, 4, 4)
    (plain,), (leveled,) = one.encode(y), variable.encode(y)
    assert (plain[:2], leveled[:2], len(unpack(leveled).fingerprint)) == (b"F2", b"F3", 4)
    with pytest.raises(UserError, match="one rate"):
        one.entropy_model.level_of(0.5)
    with pytest.raises(UserError, match="one rate"):
        one.encode_within(y, 100)
    forged = ServerHalf(one.entropy_model, nn.Identity(), nn.Identity(), variable.fingerprint())
    with pytest.raises(BitstreamError, match="level"):
        forged.latents([leveled])


def test_a_level_above_the_last_is_refused(edge):
    y = torch.randn(1, CHANNELS, 4, 4)
    payload = unpack(edge.encode(y, 32)[0])
    with pytest.raises(BitstreamError, match="level 33 is above"):
        server_of(edge).latents([pack(payload._replace(level=33))])


def test_gain_folds_into_the_last_convolutions():
    """A level's gain costs the device nothing: g_a with scaled last weights gives the gained latent."""
    encoder = ResidualEncoder((8, 8, CHANNELS))
    gain = torch.rand(CHANNELS, 1, 1) + 0.5
    x = torch.randn(2, 3, 24, 32)
    wanted = encoder(x) * gain
    last = encoder[-1]
    with torch.no_grad():
        for conv in (last.conv2, last.skip):
            conv.weight.mul_(gain[..., None])
            conv.bias.mul_(gain.flatten())
    torch.testing.assert_close(encoder(x), wanted)


def test_bottleneck_with_gain_one_is_compressai_s():
    torch.manual_seed(0)
    gains = GainUnits([0.2, 0.1], 3)
    with torch.no_grad():
        gains.log_gain.zero_()
    gained, plain = GainedBottleneck(3, gains), EntropyBottleneck(3)
    plain.load_state_dict({name: tensor for name, tensor in gained.state_dict().items() if name in plain.state_dict()})
    gained.eval(), plain.eval()
    y = 5 * torch.randn(2, 3, 4, 5)
    for found, wanted in zip(gained(y, torch.ones(2, 3, 1, 1)), plain(y), strict=True):
        torch.testing.assert_close(found, wanted)
    gained.update(force=True, update_quantiles=True), plain.update(force=True, update_quantiles=True)
    for level in (0, 1):
        rows = slice(3 * level, 3 * level + 3)
        torch.testing.assert_close(gained._offset[rows], plain._offset)
        torch.testing.assert_close(gained._quantized_cdf[rows], plain._quantized_cdf)


def test_probabilities_of_every_level_sum_to_one():
    bottleneck = edge_of("FactorizedPrior").entropy_model.codec.entropy_bottleneck
    cdf, lengths = bottleneck._quantized_cdf, bottleneck._cdf_length
    assert len(cdf) == len(LEVELS) * CHANNELS
    assert all(int(row[length - 1]) == 2**16 for row, length in zip(cdf, lengths.tolist(), strict=True))
    y = torch.arange(-3000, 3001).float().repeat(CHANNELS, 1)[None, :, None]
    gain = torch.full((1, CHANNELS, 1, 1), 2.5)
    torch.testing.assert_close(bottleneck._interval(y, gain.expand_as(y)).sum(-1), torch.ones(1, CHANNELS, 1))


SIZES = st.lists(st.lists(st.integers(20, 400), min_size=9, max_size=9).map(sorted), min_size=1, max_size=5)


@given(SIZES, st.integers(10, 450))
def test_bisection_finds_the_highest_level_that_fits_each_image(sizes, budget):
    calls = []

    def encode(levels: list[int]) -> list[bytes]:
        calls.append(levels)
        return [bytes(of_image[level]) for of_image, level in zip(sizes, levels, strict=True)]

    found = highest_within(encode, len(sizes), 8, budget)
    for stream, of_image in zip(found, sizes, strict=True):
        fitting = [size for size in of_image if size <= budget]
        assert (None if stream is None else len(stream)) == max(fitting, default=None)
    assert len(calls) <= 1 + math.ceil(math.log2(9))


def test_each_image_of_a_batch_may_have_its_level(edge):
    y = 3 * torch.randn(3, CHANNELS, 4, 4)
    mixed = edge.pack(y, [32, 0, 7])
    assert mixed == [edge.pack(one[None], level)[0] for one, level in zip(y, (32, 0, 7), strict=True)]


def test_stream_within_a_budget_runs_the_encoder_once():
    edge = edge_of("Checkerboard", ResidualEncoder((8, 8, CHANNELS)))
    runs = []
    edge.encoder.register_forward_hook(lambda *_: runs.append(1))
    x = torch.randn(1, 3, 64, 64)
    smallest, largest = (len(edge.encode(x, level)[0]) for level in (0, 32))
    assert smallest < largest
    runs.clear()
    budget = (smallest + largest) // 2
    assert smallest <= len(edge.encode_within(x, budget)) <= budget
    assert len(runs) == 1
    with pytest.raises(UserError, match=f"has {smallest} bytes, more than {smallest - 1}"):
        edge.encode_within(x, smallest - 1)
