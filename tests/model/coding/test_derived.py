import copy
import pickle

import pytest
import torch
from torch import nn

from model.coding.derived import Derived


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(2, 2)


def count(derived: Derived, layer: nn.Module) -> int:
    """Return how often the value has been computed."""
    derived.times = getattr(derived, "times", 0)

    def compute():
        derived.times += 1
        return derived.times

    assert derived.of(layer.parameters(), compute) == derived.times
    return derived.times


def test_value_is_kept_while_nothing_changes(layer):
    derived = Derived()
    assert count(derived, layer) == count(derived, layer) == 1


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight.mul_(2),
        lambda layer: layer.load_state_dict(nn.Linear(2, 2).state_dict()),
        lambda layer: setattr(layer, "bias", nn.Parameter(torch.zeros(2))),
        lambda layer: setattr(layer, "bias", None),
        lambda layer: layer.double(),
    ],
)
def test_value_follows_every_change(layer, change):
    derived = Derived()
    count(derived, layer)
    change(layer)
    assert count(derived, layer) == 2


def test_value_follows_a_step_of_an_optimizer(layer):
    derived = Derived()
    count(derived, layer)
    layer(torch.ones(1, 2)).sum().backward()
    torch.optim.Adam(layer.parameters()).step()
    assert count(derived, layer) == 2


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda derived: pickle.loads(pickle.dumps(derived))])
def test_copies_begin_empty(layer, twin):
    derived = Derived()
    derived.of(layer.parameters(), lambda: lambda: "cannot be pickled")
    assert twin(derived).of(layer.parameters(), lambda: 7) == 7
