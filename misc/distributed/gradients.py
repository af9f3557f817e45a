"""Gradients of a whole batch from ranks that each have a part of it."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.loss import _Loss
from torch.optim import Optimizer

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from model.losses import FeatureHint, RateLoss, SaliencyWeightedDistortion

SHARED_LOSSES = (_Loss, RateLoss, FeatureHint, SaliencyWeightedDistortion)


class MeanGradients:
    """Stands in for the accelerator that torchdistill's boxes take: after `backward` all ranks have the same gradients.

    They are the ranks' mean, in one exchange behind the whole backward pass and before gradients are clipped. Where
    several batches make a step, those before are the same on all ranks and so remain what they are.

    Args:
        device: where the models are.
        ranks: that all make the same steps.
    """

    state = SimpleNamespace(use_fp16=False)  # asked for by torchdistill

    def __init__(self, device: torch.device, ranks: Ranks):
        self.device = device
        self.ranks = ranks
        self.optimizer: Optimizer | None = None

    def prepare(self, *parts: Any) -> tuple:
        """Takes note of a stage's optimizer among its models and loaders, and returns all as they are."""
        self.optimizer = next(part for part in parts if isinstance(part, Optimizer))
        return parts

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = torch.cat([gradient.flatten() for gradient in gradients]) / self.ranks.world_size
        distributed.all_reduce(mean)
        parts = mean.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def scale_sums(criterion: nn.Module, ranks: Ranks) -> None:
    """Makes the ranks' mean of a loss that of the whole batch: a term that sums counts once for every rank.

    Args:
        criterion: torchdistill's sum of weighted terms; changed in place.
        ranks: with equal parts of the batch.
    """
    for name, (term, weight) in criterion.term_dict.items():
        if reduction_of(term) == "sum":
            criterion.term_dict[name] = (term, weight * ranks.world_size)


def check_terms(place: str, criterion: nn.Module) -> None:
    """Refuses a loss of which nobody knows how it depends on the batch.

    Raises:
        UserError: the term.
    """
    for name, (term, _) in criterion.term_dict.items():
        if reduction_of(term) is None:
            kind = type(_inner(term)).__name__
            raise UserError(f"{place}: {name} ({kind}) is no plain sum or mean over images: train it with one process")
    if criterion.model_loss_factor:
        raise UserError(f"{place}: whether a model_term sums or averages is not known: train it with one process")


def reduction_of(term: nn.Module) -> str | None:
    """Returns "sum" or "mean", how a term of a loss depends on the images of a batch; None where it is not known."""
    loss = _inner(term)
    if not isinstance(loss, SHARED_LOSSES):
        return None
    if loss.reduction == "sum":
        return "sum"
    # With weights per class, an image's share of the mean depends on the others.
    is_plain = loss.reduction in ("mean", "batchmean") and getattr(loss, "weight", None) is None
    return "mean" if is_plain else None


def _inner(term: nn.Module) -> nn.Module:
    """Takes torchdistill's wrapper off a loss."""
    return getattr(term, "low_level_loss", term)
