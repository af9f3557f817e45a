"""Pairs of images: mixed in the shares that the targets state."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from misc.datasets.mixed_pairs import MixedPairs

NUM_CLASSES = 6


class Flat:
    """Images of one value, 1 for class 0 up to 6 for class 5, so that an image shows its share of every class."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % NUM_CLASSES
        return torch.full((3, 16, 16), label + 1.0), label


def by(mix: type, pairs: MixedPairs) -> MixedPairs:
    """Leaves one of the two ways to mix."""
    pairs.mix = v2.RandomChoice([way for way in pairs.mix.transforms if isinstance(way, mix)])
    return pairs


def value(targets: Tensor) -> float:
    """Return the mean of an image in which the classes have these shares."""
    return float(targets @ torch.arange(1.0, NUM_CLASSES + 1))


def test_mix_up_is_the_weighted_sum_that_the_targets_state():
    torch.manual_seed(0)
    pairs = by(v2.MixUp, MixedPairs(Flat(), NUM_CLASSES, probability=1.0))
    pairs[0]
    for index in range(1, 40):
        image, targets, _ = pairs[index]
        assert set(targets.nonzero().flatten().tolist()) == {index % NUM_CLASSES, (index - 1) % NUM_CLASSES}
        torch.testing.assert_close(image, torch.full((3, 16, 16), value(targets)))


def test_cut_mix_fills_the_share_of_pixels_that_the_targets_state():
    torch.manual_seed(0)
    pairs = by(v2.CutMix, MixedPairs(Flat(), NUM_CLASSES, probability=1.0))
    pairs[0]
    mixed = 0
    for index in range(1, 40):
        image, targets, _ = pairs[index]
        label, before = index % NUM_CLASSES, (index - 1) % NUM_CLASSES
        assert float((image == label + 1).float().mean()) == pytest.approx(float(targets[label]), abs=1e-6)
        assert float((image == before + 1).float().mean()) == pytest.approx(float(targets[before]), abs=1e-6)
        mixed += 0 < targets[label] < 1
    assert mixed > 20


def test_an_unmixed_item_is_one_hot():
    image, targets, extra = MixedPairs(Flat(), NUM_CLASSES, probability=0.0)[4]
    assert torch.equal(image, torch.full((3, 16, 16), 5.0))
    assert targets.tolist() == [0, 0, 0, 0, 1, 0]
    assert extra == {}


def test_half_are_mixed_by_both_ways():
    torch.manual_seed(0)
    pairs = MixedPairs(Flat(), NUM_CLASSES)
    items = [pairs[index % 60] for index in range(600)]
    mixed = [(image, targets) for image, targets, _ in items if targets.max() < 1]
    flat = sum(int(image.unique().numel() == 1) for image, _ in mixed)
    assert 240 < len(mixed) < 340
    assert 0.35 < flat / len(mixed) < 0.75


def test_the_first_item_mixes_with_itself_alone():
    image, targets, _ = MixedPairs(Flat(), NUM_CLASSES, probability=1.0)[2]
    torch.testing.assert_close(image, torch.full((3, 16, 16), 3.0))
    torch.testing.assert_close(targets, torch.eye(NUM_CLASSES)[2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_gives_batches_of_probabilities(num_workers):
    torch.manual_seed(0)
    pairs = MixedPairs(Flat(), NUM_CLASSES)
    batches = list(DataLoader(pairs, 20, shuffle=True, num_workers=num_workers))
    assert len(pairs) == 60 and len(batches) == 3
    for images, targets, extra in batches:
        assert images.shape == (20, 3, 16, 16) and targets.shape == (20, NUM_CLASSES) and extra == {}
        torch.testing.assert_close(targets.sum(1), torch.ones(20))
        torch.testing.assert_close(images.mean((1, 2, 3)), torch.tensor([value(row) for row in targets]))
    assert 15 < sum(int((targets.max(1).values < 1).sum()) for _, targets, _ in batches) < 45


def test_the_data_set_is_left_as_it_is():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8).clone()
    pairs = MixedPairs(TensorDataset(images, torch.arange(4)), 4, probability=1.0)
    for index in range(4):
        pairs[index]
    assert torch.equal(images, torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8))
