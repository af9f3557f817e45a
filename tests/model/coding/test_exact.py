import numpy as np
import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d, MaskedConv2d
from torch import nn

from model.coding.exact import EXACT, LARGEST, ONE, ExactConv2d, ExactLeakyReLU, exact, fixed_point, largest_sum
from model.entropy import entropy_parameters, hyper_analysis, hyper_synthesis
from model.layers import Magnitude


def integers(*shape: int, most: int = 8 * ONE) -> torch.Tensor:
    return torch.randint(-most, most, shape).double()


def test_fixed_point_rounds_half_to_even_and_saturates():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 0.4, -0.6]) / ONE
    assert fixed_point(x).tolist() == [0, 2, 2, 0, -2, 0, -1]
    assert fixed_point(torch.tensor([5000.0, -1e30])).tolist() == [LARGEST, -LARGEST]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 5, 3, stride=2, padding=1),
        nn.Conv2d(3, 5, (3, 1), padding=(0, 2), dilation=2, bias=False),
        nn.Conv2d(3, 5, 1),
        MaskedConv2d(3, 6, 5, padding=2),
        CheckerboardMaskedConv2d(3, 6, 5, padding=2),
    ],
)
def test_convolution_is_that_of_python_integers(conv):
    twin, x = ExactConv2d(conv), integers(2, 3, 7, 6)
    weight = conv.weight * conv.mask if hasattr(conv, "mask") else conv.weight
    weight = [[int(w) for w in row] for row in (weight.detach().double() * 2**16).round().flatten(1)]
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    bias = [int(b) for b in (bias.double() * 2**32).round()]
    columns = nn.functional.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride).long().tolist()
    got = twin(x).flatten(2).long().tolist()
    for image, columns_of_image in enumerate(columns):
        for channel, row in enumerate(weight):
            for place, column in enumerate(zip(*columns_of_image, strict=True)):
                total = sum(a * b for a, b in zip(row, column, strict=True)) + bias[channel]
                below, rest = divmod(total, 2**16)
                expected = below + (rest > 2**15 or (rest == 2**15 and below % 2))
                assert got[image][channel][place] == expected
    assert twin(x).shape == conv(x.float()).shape


def test_leaky_relu_is_that_of_python_integers():
    x = torch.tensor([5.0, 0.0, -1.0, -100.0, -65536.0, -LARGEST - 7])
    assert ExactLeakyReLU(0.01)(x.double()).tolist() == [5, 0, 0, -1, -655, -(2**12) * 655]


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_sums_stay_exact_whatever_the_input(scale):
    conv = nn.Conv2d(16, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(scale)
    twin = ExactConv2d(conv)
    assert largest_sum(twin.weight, twin.bias) <= EXACT
    worst = (LARGEST * 10 * twin.weight[0].sign()).unflatten(0, (16, 3, 3))[None]
    total = sum(int(w) * LARGEST * int(np.sign(w)) for w in twin.weight[0].tolist()) + int(twin.bias[0])
    assert abs(total * 2.0**-twin.weight_bits - float(twin(worst)[0, 0, 1, 1])) <= 0.5


@pytest.mark.parametrize("value", [1e12, float("nan")])
def test_weights_that_cannot_be_summed_exactly_are_refused(value):
    conv = nn.Conv2d(1, 1, 1)
    nn.init.constant_(conv.weight, value)
    with pytest.raises(ValueError, match="too large, or not finite"):
        exact(conv)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(Magnitude(), *hyper_analysis(12, 8)),
        hyper_synthesis(8, 24),
        nn.Sequential(nn.Conv2d(8, 48, 1), *entropy_parameters(12)),
    ],
)
def test_networks_stay_close_to_their_float_originals(network):
    x = 3 * torch.randn(2, 12 if isinstance(network[0], Magnitude) else 8, 8, 8)
    with torch.no_grad():
        expected, got = network(x), exact(network)(fixed_point(x))
    assert torch.equal(got, got.round())
    assert (got / ONE - expected).abs().max() < 2e-3


def test_results_do_not_depend_on_threads_batch_memory_format_or_order_of_summation():
    network, x = exact(hyper_synthesis(8, 24)), integers(6, 8, 7, 5)
    expected = network(x)
    assert torch.equal(torch.cat([network(image[None]) for image in x]), expected)
    assert torch.equal(network(x.to(memory_format=torch.channels_last)), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(network(x), expected)
    finally:
        torch.set_num_threads(threads)
    permuted = torch.randperm(8 * 9)
    conv = network[1].conv1
    columns = nn.functional.unfold(x, 3, padding=1)
    assert torch.equal(conv.weight[:, permuted] @ columns[:, permuted], conv.weight @ columns)


def test_twin_shares_nothing_with_the_original():
    network, x = hyper_synthesis(8, 24), integers(1, 8, 2, 2)
    twin = exact(network)
    before = twin(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(twin(x), before) and not torch.equal(exact(network)(x), before)


@pytest.mark.parametrize(
    "module",
    [
        nn.GELU(),
        nn.BatchNorm2d(3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(3, 3, 3, padding_mode="reflect"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(4, 4)),
        nn.Upsample(scale_factor=3),
    ],
)
def test_modules_without_exact_counterpart_are_refused(module):
    with pytest.raises(TypeError, match="no exact counterpart"):
        exact(nn.Sequential(module))
