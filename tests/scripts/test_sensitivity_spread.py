"""The spread of a sensitivity, by hand."""

import pytest
import torch

from misc.errors import UserError
from saliency_maps.analysis.statistics import spread_table
from scripts.sensitivity_spread import main


def test_the_spread_of_two_channels_and_positions():
    elements, tokens = torch.tensor([[[1.0, 4.0]], [[1.0, 4.0]]]), torch.tensor([[[1.0, 4.0]]])  # of one image
    _, channels, positions, both, images, tokens = spread_table(elements, tokens)
    assert channels == ["channels", "2", "1.00", "1.00", "1.00", "0.000"]
    # Arithmetic mean 2.5, geometric 2: half of log2(1.25).
    assert positions == ["positions", "2", "0.40", "0.40", "1.60", "0.161"]
    assert both[1:] == ["4", "0.40", "0.40", "1.60", "0.161"]
    assert images[1:5] == ["1", "1.00", "1.00", "1.00"]
    assert tokens[1:] == positions[1:]


def test_weights_of_zero_have_no_bits_and_nothing_at_all_is_an_error():
    assert spread_table(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 1.0]]]))[2] == [
        "positions",
        "2",
        "0.00",
        "0.00",
        "2.00",
        "",
    ]
    with pytest.raises(UserError, match="do not change with this layer"):
        spread_table(torch.zeros(2, 1, 2), torch.zeros(1, 1, 2))


def test_an_unknown_layer_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--config", "config/tiny_imagenet/phd_resnet.yaml", "--target_layer", "layer9", "--device", "cpu"])
    assert stop.value.code == 2
    assert "layer9" in capsys.readouterr().err
