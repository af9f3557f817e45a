"""One optimisation step on a batch, through torchdistill's box; no files are read or written."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchdistill.core.distillation import DistillationBox, get_distillation_box
from torchdistill.core.training import TrainingBox, get_training_box

from misc.distributed.batches import PartOfEachBatch, SomeBatches, shared
from misc.distributed.gradients import MeanGradients, scale_sums
from misc.distributed.ranks import ALONE, Ranks
from misc.errors import UserError
from misc.training.checks import RATE, plan_schedules, stages_of
from model.split import SplitClassifier


def make_box(
    config: dict, models: dict[str, nn.Module], device: torch.device, ranks: Ranks = ALONE
) -> DistillationBox | TrainingBox:
    """Build torchdistill's box, which holds models, data, loss and optimizer of the current stage.

    Args:
        config: as `misc.config` constructs it. Changed in place: OneCycleLR schedules get their length, and with
            several ranks every loader becomes this rank's.
        models: by the config's names.
        device: where all of them are.
        ranks: processes that share the training.
    """
    plan_schedules(config)
    accelerator = None
    if not ranks.alone:
        # On CUDA torchdistill would wrap models in DistributedDataParallel, which breaks the auxiliary loss's backward.
        accelerator = MeanGradients(device, ranks)
        for stage in stages_of(config["train"]):
            stage["train_data_loader"] = shared(stage["train_data_loader"], PartOfEachBatch, ranks)
            stage["val_data_loader"] = shared(stage["val_data_loader"], SomeBatches, ranks)
    common = (config["datasets"], config["train"], device, None, False, 1, accelerator)
    if "teacher_model" in models:
        # torchdistill leaves the teacher's mode alone; its batch statistics must not move.
        models["teacher_model"].eval()
        return get_distillation_box(models["teacher_model"], models["student_model"], *common)
    return get_training_box(models["model"], *common)


class TrainingStep:
    """Forward pass, check of the loss, backward passes and update.

    Args:
        box: as `make_box` builds it.
        trained: the model that is trained; a SplitClassifier has an auxiliary loss too.
        device: where it is.
        ranks: processes that share every batch.

    Attributes:
        loss_terms: weighted values of the loss's terms in the last step, over the whole batch.
    """

    def __init__(
        self, box: DistillationBox | TrainingBox, trained: nn.Module, device: torch.device, ranks: Ranks = ALONE
    ):
        self.box = box
        self.trained = trained
        self.device = device
        self.ranks = ranks
        self.autocast: str | None = None
        self.rate_warmup = 0.0
        self.rate_weight = 0.0
        self.own_momenta = [(norm, norm.momentum) for norm in trained.modules() if isinstance(norm, _BatchNorm)]
        self.loss_terms: dict[str, float] = {}

    def begin_stage(
        self, autocast: str | None = None, rate_warmup: float = 0.0, bn_momentum: float | None = None
    ) -> None:
        """Prepare the box's current stage; call once per stage.

        Args:
            autocast: name of torch's data type for the forward pass, "bfloat16"; None computes in float32.
            rate_warmup: share of the stage's steps in which the weight of the loss's term `rate` rises from zero.
            bn_momentum: of batch normalisation, 0 to 1: the weight of each batch in the running statistics, which
                tests use. Small batches need a small one. None leaves each layer its own, usually 0.1.
        """
        self.autocast = autocast
        self.rate_warmup = rate_warmup
        if rate_warmup:
            _, self.rate_weight = self.box.criterion.term_dict[RATE]
        for norm, own in self.own_momenta:
            norm.momentum = own if bn_momentum is None else bn_momentum
        scale_sums(self.box.criterion, self.ranks)
        record_terms(self.box.criterion, self.loss_terms)

    def weigh_rate(self, share: float) -> None:
        """Set the weight of the rate, which rises linearly at the beginning of a stage.

        A large weight from the first step makes the encoder save bits before it has learned what they are for: its
        latents shrink to nearly nothing, and grow back slowly.

        Args:
            share: of the stage's steps that have been taken, 0 to 1.
        """
        if self.rate_warmup:
            terms = self.box.criterion.term_dict
            terms[RATE] = terms[RATE][0], self.rate_weight * min(1.0, share / self.rate_warmup)

    def take(self, x: Tensor, targets: Tensor | dict[str, Tensor], supp_dict: dict, place: str) -> float:
        """Take one step; the auxiliary loss reaches the quantiles of the entropy bottlenecks alone.

        Args:
            x: this rank's images, (B, 3, H, W).
            targets: labels (B,), or a dict of labels and saliency maps.
            supp_dict: torchdistill's supplementary data of the batch.
            place: names the step in an error.

        Returns:
            The loss of the whole batch.

        Raises:
            UserError: the loss is not finite; names the step and the terms' values.
        """
        with torch.autocast(self.device.type, getattr(torch, self.autocast)) if self.autocast else nullcontext():
            loss = self.box.forward_process(to_device(x, self.device), to_device(targets, self.device), supp_dict)
        value = self._average(float(loss.detach()))
        if not math.isfinite(value):
            terms = ", ".join(f"{name} {term:g}" for name, term in self.loss_terms.items())
            remedy = "lower the learning rate or set max_grad_norm"
            raise UserError(f"the loss is not finite in {place} ({terms}): {remedy}")
        if isinstance(self.trained, SplitClassifier):
            aux_loss = self.trained.aux_loss()
            if aux_loss.requires_grad:  # not if the stage freezes the entropy model
                aux_loss.backward()
        self.box.post_forward_process(loss=loss)
        return value

    def _average(self, loss: float) -> float:
        """Return the mean over ranks of the loss, and replace its terms by theirs."""
        loss, *terms = self.ranks.mean([loss, *self.loss_terms.values()])
        self.loss_terms.update(zip(self.loss_terms, terms, strict=True))
        return loss


def record_terms(criterion: nn.Module, loss_terms: dict[str, float]) -> None:
    """Record every term's weighted value in `loss_terms` at each forward pass: torchdistill returns their sum alone."""
    loss_terms.clear()
    for name, (term, _) in criterion.term_dict.items():

        def record(module: nn.Module, inputs: tuple, output: Tensor, name: str = name) -> None:
            loss_terms[name] = float(criterion.term_dict[name][1] * output.detach())

        term.register_forward_hook(record)


def freeze_statistics(model: nn.Module) -> None:
    """Put modules whose parameters are all frozen into evaluation mode: their batch statistics must not move."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def to_device(batch: Tensor | dict[str, Tensor], device: torch.device) -> Tensor | dict[str, Tensor]:
    """Move images (to channels last), labels, or a dict of labels and maps to a device."""
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    layout = torch.channels_last if batch.ndim == 4 else torch.preserve_format
    return batch.to(device, non_blocking=True, memory_format=layout)
