"""Bits per position add up to the bits of the image."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from misc.evaluation.accuracy import estimate
from misc.evaluation.spending import bits_per_position
from model.encoder import ResidualEncoder
from model.entropy import Checkerboard, FactorizedPrior, MeanScaleHyperprior


@pytest.mark.parametrize("prior", [FactorizedPrior, MeanScaleHyperprior, Checkerboard])
def test_positions_add_up_to_the_image(prior):
    torch.manual_seed(0)
    student = SimpleNamespace(encoder=ResidualEncoder(), entropy_model=prior().eval())
    student.decoder = student.tail = nn.Identity()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    bits = bits_per_position(student, x)
    assert bits.shape == (2, 8, 8) and (bits > 0).all()
    with torch.inference_mode():
        torch.testing.assert_close(bits.sum(dim=(1, 2)), estimate(student, x)[1], rtol=1e-5, atol=1e-3)
