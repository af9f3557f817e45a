"""Gain units: one encoder, entropy model and decoder for every rate.

Z. Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021. Each trained level
has a gain per channel, which multiplies y before it is rounded, and an inverse gain, which multiplies what was decoded.
The larger the gain, the finer the rounding and the longer the stream. Between two levels both are interpolated
geometrically.

The inverse gain is a parameter of its own, hence "asymmetric". Neither selects a coding table of a hyperprior, so
machines whose floats differ in the last bit still decode alike.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from misc.errors import UserError

STEPS = 16  # between two neighbouring levels
MAX_LEVELS = 16  # a stream's level fits a byte
DEFAULT_RATE = 0.5


class Gains(NamedTuple):
    """What a batch's levels mean.

    Attributes:
        gain: (B, C, 1, 1).
        inverse: (B, C, 1, 1).
        lmbda: weight of each image's rate in the loss, (B,).
        nearest: the nearest trained level, int64 (B,).
    """

    gain: Tensor
    inverse: Tensor
    lmbda: Tensor
    nearest: Tensor


class GainUnits(nn.Module):
    """The gains of all levels.

    A level is an integer: 16 * k is trained level k, and the 15 integers in between are interpolated. A rate is a
    number: 0 is the first trained level, with the smallest streams, 1 the last.

    Args:
        levels: lmbda of each trained level, falling.
        channels: of y.

    Raises:
        UserError: fewer than 2 levels, more than 16, or lmbdas that are not positive and falling.
    """

    def __init__(self, levels: Sequence[float], channels: int):
        super().__init__()
        if not 2 <= len(levels) <= MAX_LEVELS:
            raise UserError(f"levels has {len(levels)} values of lmbda; expected 2 to {MAX_LEVELS}")
        falling = all(before > after for before, after in pairwise(levels))
        if not falling or levels[-1] <= 0:
            raise UserError(f"levels is {list(levels)}; expected positive values of lmbda, from the largest down")
        log_lmbda = torch.tensor(levels, dtype=torch.float32).log()
        self.register_buffer("log_lmbda", log_lmbda, persistent=False)
        # At a high rate, the best quantisation step is proportional to the root of lmbda.
        log_gain = (log_lmbda.mean() - log_lmbda) / 2
        self.log_gain = nn.Parameter(log_gain[:, None].repeat(1, channels))
        self.log_inverse = nn.Parameter(-log_gain[:, None].repeat(1, channels))

    @property
    def last(self) -> int:
        """The highest level."""
        return STEPS * (len(self.log_gain) - 1)

    def trained(self) -> list[int]:
        """Return the trained levels, lowest rate first."""
        return list(range(0, self.last + 1, STEPS))

    def level_of(self, rate: float) -> int:
        """Return the level nearest to a rate.

        Raises:
            UserError: a rate outside of 0 to 1.
        """
        if not 0 <= rate <= 1:
            raise UserError(f"the rate is {rate:g}; expected 0 (smallest streams) to 1 (largest)")
        return round(rate * self.last)

    def drawn(self, images: int) -> Tensor:
        """Return a random trained level for each image, (images,), for a training step.

        Its probability is proportional to lmbda ** -0.5: with equal ones, low rates, whose losses are the largest,
        would decide what encoder and decoder learn, at the cost of the high rates.
        """
        weights = (-0.5 * self.log_lmbda.cpu()).exp()
        return STEPS * torch.multinomial(weights, images, replacement=True).to(self.log_gain.device)

    def forward(self, levels: Tensor) -> Gains:
        """Return the gains of levels (B,), int64, each 0 to `last`."""
        below = levels // STEPS
        above = (below + 1).clamp(max=len(self.log_gain) - 1)
        fraction = ((levels % STEPS).double() / STEPS)[:, None]
        log_gain, log_inverse, log_lmbda = (  # in float64, so that the float32 results are the same on any machine
            torch.lerp(table[below].double(), table[above].double(), fraction)
            for table in (self.log_gain, self.log_inverse, self.log_lmbda[:, None])
        )
        nearest = (levels + STEPS // 2) // STEPS
        gain, inverse = (log.exp().float()[:, :, None, None] for log in (log_gain, log_inverse))
        return Gains(gain, inverse, log_lmbda[:, 0].exp().float(), nearest)
