from types import SimpleNamespace

import pytest
import torch

from misc.errors import UserError
from model.losses import BppLoss, FeatureHint, RateLoss, RelativeRateLoss, SaliencyWeightedDistortion


def test_saliency_weights_by_hand():
    h = torch.zeros(1, 2, 2, 2)
    h_hat = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    s = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    student = {"decoder": {"output": h_hat}}
    teacher = {"head": {"output": h}}
    # squared errors summed over channels: 2, 5, 10, 17; weights (1 + s) / 2: 0.5, 1, 0.75, 0.5
    loss = SaliencyWeightedDistortion("decoder", "head")(student, teacher, {"saliency": s})
    assert loss.item() == 2 * 0.5 + 5 * 1 + 10 * 0.75 + 17 * 0.5
    # alpha 1, beta 3: weights (1 + 3 s) / 4: 0.25, 1, 0.625, 0.25
    loss = SaliencyWeightedDistortion("decoder", "head", 1, 3)(student, teacher, {"saliency": s})
    assert loss.item() == 2 * 0.25 + 5 * 1 + 10 * 0.625 + 17 * 0.25


def test_each_token_takes_the_mean_of_the_map_over_its_area():
    s = torch.zeros(1, 1, 4, 4)
    s[..., 0, 0] = 1.0
    h_hat, h = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    loss = SaliencyWeightedDistortion("decoder", "head", alpha=0, beta=1)(
        {"decoder": {"output": h_hat}}, {"head": {"output": h}}, {"saliency": s}
    )
    assert loss.item() == 0.25


def test_layouts_weigh_the_same_places():
    difference, s = torch.rand(2, 3, 2, 2), torch.rand(2, 1, 4, 4)
    tokens = torch.cat([torch.zeros(2, 1, 3), difference.flatten(2).transpose(1, 2)], dim=1)
    layouts = {"NCHW": difference, "NHWC": difference.permute(0, 2, 3, 1), "NLC": tokens}
    losses = []
    for layout, error in layouts.items():
        distortion = SaliencyWeightedDistortion("decoder", "head", layout=layout)
        io = {"decoder": {"output": error}}, {"head": {"output": torch.zeros_like(error)}}
        losses.append(distortion(*io, {"saliency": s}).item())
    assert losses == pytest.approx([losses[0]] * 3)


def test_prefix_tokens_count_in_full():
    error, s = torch.zeros(1, 5, 1), torch.zeros(1, 1, 2, 2)
    error[0, 0] = 2.0
    distortion = SaliencyWeightedDistortion("decoder", "head", layout="NLC")
    loss = distortion({"decoder": {"output": error}}, {"head": {"output": torch.zeros_like(error)}}, {"saliency": s})
    assert loss.item() == 4.0


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (2, 17, 8)), ("NLC", (2, 142, 8)), ("NLC", (2, 4, 4, 8))])
def test_a_feature_of_another_layout_is_refused(layout, shape):
    io = {"decoder": {"output": torch.zeros(shape)}}, {"head": {"output": torch.zeros(shape)}}
    with pytest.raises(UserError, match=f"head gives .* which is not {layout}"):
        SaliencyWeightedDistortion("decoder", "head", layout=layout)(*io, {"saliency": torch.zeros(2, 1, 8, 8)})


def test_an_unknown_layout_is_named():
    with pytest.raises(UserError, match="no layout 'NHCW'; did you mean"):
        SaliencyWeightedDistortion("decoder", "head", layout="NHCW")


def test_hint_compares_the_same_place_and_channel_of_both_layouts():
    wanted = torch.arange(24.0).reshape(1, 2, 3, 4)
    hint = FeatureHint("layers.1", "layer2")
    teacher = {"layer2": {"output": wanted}}
    assert hint({"layers.1": {"output": wanted.permute(0, 2, 3, 1)}}, teacher).item() == 0
    assert hint({"layers.1": {"output": wanted.permute(0, 2, 3, 1) + 2}}, teacher).item() == 4
    same_layout = FeatureHint("stages.1", "layer2", channels_last=False)
    assert same_layout({"stages.1": {"output": wanted + 2}}, teacher).item() == 4


def test_rate_is_the_bits_of_the_batch_over_all_latents():
    likelihoods = {"y": torch.full((2, 3, 1, 1), 0.5), "z": torch.full((2, 1, 1, 1), 0.25)}
    out = {"entropy_model.codec": {"output": {"likelihoods": likelihoods}}}
    assert RateLoss()(out, {}).item() == 6 * 1 + 2 * 2


def test_bits_per_pixel_are_those_of_the_input():
    likelihoods = {"y": torch.full((2, 3, 1, 1), 0.5)}
    io = {
        "entropy_model.codec": {"output": {"likelihoods": likelihoods}},
        "encoder": {"input": torch.zeros(2, 3, 4, 8)},
    }
    assert BppLoss()(io, {}).item() == 6 / (2 * 4 * 8)


def test_the_relative_rate_is_bits_times_the_variance_per_pixel():
    io = {
        "entropy_model.codec": {"output": {"likelihoods": {"y": torch.full((2, 3, 2, 2), 0.25)}}},  # 24 bits an image
        "entropy_model.gains": {"output": SimpleNamespace(lmbda=torch.tensor([1.0, 0.5]))},
    }
    assert RelativeRateLoss(variance=0.5)(io, {}).item() == 0.5 * 2 * 24
    weighted = RelativeRateLoss(variance=0.5, gains_path="entropy_model.gains")
    assert weighted(io, {}).item() == 0.5 * (24 + 12)
    with pytest.raises(UserError, match="no variance of h"):
        RelativeRateLoss()(io, {})
