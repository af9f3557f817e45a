import torch

from misc.losses import FeatureHint, RateLoss, SaliencyWeightedDistortion


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


def test_hint_compares_the_same_place_and_channel_of_both_layouts():
    wanted = torch.arange(24.0).reshape(1, 2, 3, 4)
    hint = FeatureHint("layers.1", "layer2")
    teacher = {"layer2": {"output": wanted}}
    assert hint({"layers.1": {"output": wanted.permute(0, 2, 3, 1)}}, teacher).item() == 0
    assert hint({"layers.1": {"output": wanted.permute(0, 2, 3, 1) + 2}}, teacher).item() == 4


def test_rate_is_the_bits_of_the_batch_over_all_latents():
    likelihoods = {"y": torch.full((2, 3, 1, 1), 0.5), "z": torch.full((2, 1, 1, 1), 0.25)}
    out = {"entropy_model.codec": {"output": {"likelihoods": likelihoods}}}
    assert RateLoss()(out, {}).item() == 6 * 1 + 2 * 2
