"""Gradients of a whole batch of which each rank computes a part."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.loss import _Loss
from torch.optim import Optimizer

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from model.losses import FeatureHint, RateLoss, SaliencyWeightedDistortion

SHARED_LOSSES = (_Loss, RateLoss, FeatureHint, SaliencyWeightedDistortion)


class MeanGradients:
    """Average gradients over ranks; takes the place of the `accelerate.Accelerator` in torchdistill's boxes.

    `backward` reduces all gradients in one exchange after the whole backward pass, before they are clipped. Gradients
    accumulated from earlier batches are already equal on all ranks, so averaging leaves them unchanged.

    Args:
        device: where the models are.
        ranks: processes that take every step together.
    """

    state = SimpleNamespace(use_fp16=False)  # torchdistill reads it

    def __init__(self, device: torch.device, ranks: Ranks):
        self.device = device
        self.ranks = ranks
        self.optimizer: Optimizer | None = None

    def prepare(self, *parts: Any) -> tuple:
        """Remember the stage's optimizer, which comes among its models and loaders; return all unchanged."""
        self.optimizer = next(part for part in parts if isinstance(part, Optimizer))
        return parts

    def backward(self, loss: Tensor) -> None:
        """Compute this rank's gradients and replace them by the mean over ranks."""
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = torch.cat([gradient.flatten() for gradient in gradients]) / self.ranks.world_size
        distributed.all_reduce(mean)
        parts = mean.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def scale_sums(criterion: nn.Module, ranks: Ranks) -> None:
    """Make the mean over ranks of a loss equal the whole batch's: scale terms that sum by the number of ranks.

    Args:
        criterion: torchdistill's sum of weighted terms; changed in place.
        ranks: processes with equal parts of the batch.
    """
    terms = cast(dict, criterion.term_dict)
    for name, (term, weight) in terms.items():
        if reduction_of(term) == "sum":
            terms[name] = (term, weight * ranks.world_size)


def check_terms(place: str, criterion: nn.Module) -> None:
    """Reject losses whose batch reduction is unknown.

    Args:
        place: names the stage in the error.
        criterion: torchdistill's sum of weighted terms.

    Raises:
        UserError: names the term.
    """
    for name, (term, _) in criterion.term_dict.items():
        if reduction_of(term) is None:
            kind = type(_inner(term)).__name__
            raise UserError(f"{place}: {name} ({kind}) is not a plain sum or mean over images: train with one process")
    if criterion.model_loss_factor:
        raise UserError(f"{place}: whether model_term sums or averages is unknown: train with one process")


def reduction_of(term: nn.Module) -> str | None:
    """Return how a term of a loss reduces the images of a batch, "sum" or "mean"; None if that is unknown."""
    loss = _inner(term)
    if not isinstance(loss, SHARED_LOSSES):
        return None
    if loss.reduction == "sum":
        return "sum"
    # With class weights, an image's share of the mean depends on the other images.
    is_plain = loss.reduction in ("mean", "batchmean") and getattr(loss, "weight", None) is None
    return "mean" if is_plain else None


def _inner(term: nn.Module) -> nn.Module:
    """Return a loss without torchdistill's wrapper."""
    return getattr(term, "low_level_loss", term)
