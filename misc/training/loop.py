"""Training through torchdistill's boxes: what they leave to the caller, and nothing they do."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchdistill.core.distillation import DistillationBox, get_distillation_box
from torchdistill.core.training import TrainingBox, get_training_box

from misc.distributed.batches import PartOfEachBatch, SomeBatches, shared
from misc.distributed.gradients import MeanGradients, scale_sums
from misc.distributed.ranks import ALONE, Ranks
from misc.errors import UserError
from misc.evaluation.accuracy import validate
from misc.files import write_atomically
from misc.progress import progress_bar
from misc.training.checkpoint import random_state, remove_checkpoints, save_checkpoint, set_random_state
from misc.training.checks import plan_schedules, stages_of
from misc.training.run_folder import WEIGHTS
from model.split import SplitClassifier, load_into
from model.weights import digest, save_weights

LOG_EVERY = 50  # steps
CHECKPOINT_EVERY = 600  # seconds, and at the end of every epoch
logger = logging.getLogger(__name__)


def train(
    config: dict,
    models: dict[str, nn.Module],
    device: torch.device,
    run_dir: Path,
    checkpoint: dict[str, Any] | None = None,
    ranks: Ranks = ALONE,
    **facts: object,
) -> Path:
    """Trains `models["student_model"]`, or `models["model"]`, through every stage of `config["train"]`.

    Each stage keeps the weights of its best epoch by top-1 on the validation set (the later of equal ones); the next
    stage goes on from the last ones. The last stage's best become the run's weights, with the coder's tables in them.
    A killed run that goes on from its checkpoint ends, on a CPU, with the same bits as one that was left alone.

    Several ranks share every batch and make the steps of one, but for noise, augmentation and batch statistics, which
    are of each rank's part; the first rank's statistics are what is validated and saved. Only the first writes.

    Args:
        config: as `misc.config.load` constructs it.
        models: by the config's names.
        device: where all of them are.
        run_dir: the run's folder.
        checkpoint: of the run that is to go on; None begins.
        ranks: who trains; the models are made equal.
        **facts: kept in the weights' metadata beside the validation accuracy.

    Returns:
        The weights' path in the run folder.

    Raises:
        UserError: a loss that is not finite, with stage, epoch, step and the terms' values.
    """
    box = make_box(config, models, device, ranks)
    trained = models.get("student_model", models.get("model"))
    loop = TrainingLoop(box, config["train"], trained, device, run_dir, ranks)
    if checkpoint is not None:
        loop.restore(checkpoint)
    best, final = loop.run(), run_dir / WEIGHTS
    if ranks.first:
        load_into(trained, best)
        if isinstance(trained, SplitClassifier) and digest(trained.entropy_model) != loop.first["entropy_model"]:
            trained.update(force=True, update_quantiles=True)
        save_weights(trained, final, loop.first.get("tail"), val_top1=round(loop.best_top1, 3), **facts)
        remove_checkpoints(run_dir)
    ranks.wait()
    if not ranks.first:
        load_into(trained, final)
    return final


def make_box(
    config: dict, models: dict[str, nn.Module], device: torch.device, ranks: Ranks = ALONE
) -> DistillationBox | TrainingBox:
    """Returns torchdistill's box; where ranks share the training, the config's loaders become this rank's."""
    plan_schedules(config)
    accelerator = None
    if not ranks.alone:
        # torchdistill wraps a model in DistributedDataParallel on CUDA alone, where the aux loss's backward breaks it.
        accelerator = MeanGradients(device, ranks)
        for stage in stages_of(config["train"]):
            stage["train_data_loader"] = shared(stage["train_data_loader"], PartOfEachBatch, ranks)
            stage["val_data_loader"] = shared(stage["val_data_loader"], SomeBatches, ranks)
    common = (config["datasets"], config["train"], device, None, False, 1, accelerator)
    if "teacher_model" in models:
        # torchdistill leaves the teacher in the mode it was given in; frozen batch statistics are part of the teacher.
        models["teacher_model"].eval()
        return get_distillation_box(models["teacher_model"], models["student_model"], *common)
    return get_training_box(models["model"], *common)


BEGINNING = {"stage": 1, "epoch": 1, "all_steps": 0, "rows": 0}
EPOCH_BEGINNING = {"steps": 0, "seconds": 0.0, "totals": {}}


@dataclass
class TrainingLoop:
    """One run: epochs, steps, validation, log lines, events, the best weights of each stage, checkpoints.

    All ranks go through it alike; what is written, the first writes.

    Attributes:
        at: where the run stands, in plain values: stage and epoch, from 1; the steps taken in that epoch, its seconds
            and the sums of its losses so far; the steps of the whole run; the rows of its history.
        first: digests of the parts that training may leave as they were when it began.
        epoch_began: the random state at the beginning of the epoch.
        now: the random state of the checkpoint.
    """

    box: DistillationBox | TrainingBox
    train_config: dict
    trained: nn.Module
    device: torch.device
    run_dir: Path
    ranks: Ranks = ALONE
    best_top1: float = -math.inf
    at: dict[str, Any] = field(default_factory=lambda: {**BEGINNING, **EPOCH_BEGINNING})
    terms: dict[str, float] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    epoch_began: dict[str, Any] = field(default_factory=random_state)
    now: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.trained, SplitClassifier):
            self.first = {part: digest(getattr(self.trained, part)) for part in ("tail", "entropy_model")}
        self.events = self.open_events()
        self.saved = time.monotonic()

    def open_events(self, purge_step: int | None = None) -> SummaryWriter | None:
        return SummaryWriter(self.run_dir / "events", purge_step=purge_step) if self.ranks.first else None

    def run(self) -> Path:
        """Runs all stages that are left; returns the path of the last stage's best weights."""
        # By number, as torchdistill goes, whatever their order in the file.
        stages = stages_of(self.train_config)
        if self.at == {**BEGINNING, **EPOCH_BEGINNING}:
            self.save()
        for stage_config in stages[self.at["stage"] - 1 :]:
            self.run_stage(stage_config)
        if self.ranks.first:
            self.events.close()
        return self.best_of(len(stages))

    def best_of(self, stage: int) -> Path:
        return self.run_dir / f"stage{stage}_best.safetensors"

    def arranged(self) -> nn.Module:
        """Returns the model as the stage arranges it, with the adaptations that it adds."""
        return self.box.student_model if isinstance(self.box, DistillationBox) else self.box.model

    def run_stage(self, stage_config: dict) -> None:
        """Trains what is left of a stage of `stage_config["num_epochs"]` epochs."""
        stage, epochs, loader = self.at["stage"], stage_config["num_epochs"], self.box.train_data_loader
        self.ranks.equalise(self.trained, self.arranged())
        scale_sums(self.box.criterion, self.ranks)
        record_terms(self.box.criterion, self.terms)
        done = (self.at["epoch"] - 1) * len(loader.sampler)
        with progress_bar(None, f"stage {stage}", epochs * len(loader.sampler), initial=done) as bar:
            for epoch in range(self.at["epoch"], epochs + 1):
                self.box.pre_epoch_process(epoch=epoch)
                freeze_statistics(self.trained)
                means = self.run_epoch(f"stage {stage}, epoch {epoch}", stage_config.get("autocast"), bar)
                self.ranks.equalise(self.trained, self.arranged())  # batch statistics are each rank's own
                with torch.random.fork_rng(devices=[]):  # a loader draws a seed, even where nothing needs one
                    val = validate(self.trained, self.box.val_data_loader, self.device, self.ranks)
                if self.ranks.first:
                    self.report(bar, f"stage {stage} epoch {epoch}/{epochs}", means, val)
                self.keep_best(self.best_of(stage), val["top1"])
                # At the end of a stage it moves the box on, to the next stage's models, data and loss.
                self.box.post_epoch_process(metrics=val["top1"])
                self.at |= {"epoch": epoch + 1, "rows": self.at["rows"] + 1, **EPOCH_BEGINNING}
                if epoch == epochs:
                    self.at |= {"stage": stage + 1, "epoch": 1}
                    self.best_top1 = -math.inf if stage < len(stages_of(self.train_config)) else self.best_top1
                self.save()

    def run_epoch(self, place: str, autocast: str | None, bar) -> dict[str, float]:
        """Takes the steps that are left, one per batch; returns the mean of the loss and its terms over all steps."""
        start, earlier = time.perf_counter(), self.at["seconds"]
        for x, targets, supp_dict in self.batches(bar):
            x, targets = to_device(x, self.device), to_device(targets, self.device)
            loss = self.take_step(x, targets, supp_dict, autocast, f"{place}, step {self.at['steps'] + 1}")
            totals = self.at["totals"]
            totals = {name: totals.get(name, 0.0) + value for name, value in {"loss": loss, **self.terms}.items()}
            seconds = earlier + time.perf_counter() - start
            self.at |= {"steps": self.at["steps"] + 1, "all_steps": self.at["all_steps"] + 1}
            self.at |= {"totals": totals, "seconds": seconds}
            if self.ranks.first and self.at["all_steps"] % LOG_EVERY == 0:
                self.write_events("train", {"loss": loss, **self.terms})
            bar.update(len(x) * self.ranks.world_size)
            if self.at["steps"] < len(self.box.train_data_loader) and self.is_time_to_save():
                self.save()
        return {name: total / self.at["steps"] for name, total in self.at["totals"].items()}

    def batches(self, bar) -> Iterator:
        """Yields the epoch's batches, without those of steps that were taken before a checkpoint."""
        loader = self.box.train_data_loader
        # New workers for every epoch: those that persist carry random states on that no checkpoint could hold.
        loader._iterator = None
        if self.at["steps"] == 0:
            self.epoch_began = random_state()
            return iter(loader)
        batches = iter(loader)
        for _ in range(self.at["steps"]):
            bar.update(len(next(batches)[0]) * self.ranks.world_size)
        set_random_state(self.now)
        return batches

    def is_time_to_save(self) -> bool:
        """Asks all ranks' clocks: they must save together."""
        return self.ranks.mean([time.monotonic() - self.saved])[0] > CHECKPOINT_EVERY

    def save(self) -> None:
        """Writes a checkpoint; besides random numbers, the first rank's state is everybody's."""
        random_states = self.ranks.gather([{"epoch_began": self.epoch_began, "now": random_state()}])
        if self.ranks.first:
            self.write_checkpoint(*random_states)
        self.saved = time.monotonic()

    def write_checkpoint(self, own: dict[str, Any], *others: dict[str, Any]) -> None:
        """Writes a checkpoint with the random states of this rank and the others."""
        box = self.box
        parameters = [parameter for group in box.optimizer.param_groups for parameter in group["params"]]
        state = {
            "at": self.at,
            "best_top1": self.best_top1,
            "first": self.first,
            **own,
            "other_ranks": others,
            "model": self.trained.state_dict(),
            "arranged": self.arranged().state_dict(),  # what it shares with the model is stored once
            "optimizer": box.optimizer.state_dict(),
            "scheduler": box.lr_scheduler.state_dict() if box.lr_scheduler is not None else None,
            "gradients": [parameter.grad for parameter in parameters],  # where several batches make a step
            "batches_since_stage": box.stage_grad_count,
        }
        save_checkpoint(self.run_dir, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the loop, and the box that was just made, to where `save` was called."""
        box, stages = self.box, stages_of(self.train_config)
        self.at, self.best_top1, self.first = state["at"], state["best_top1"], state["first"]
        own = state if self.ranks.first else state["other_ranks"][self.ranks.rank - 1]
        self.epoch_began, self.now = own["epoch_began"], own["now"]
        if self.ranks.first:
            self.take_back_rows()
        if self.at["stage"] > len(stages):
            return
        for _ in range(self.at["stage"] - 1):
            box.advance_to_next_stage()
        box.current_epoch = sum(stage["num_epochs"] for stage in stages[: self.at["stage"] - 1]) + self.at["epoch"] - 1
        self.trained.load_state_dict(state["model"])
        self.arranged().load_state_dict(state["arranged"])
        box.optimizer.load_state_dict(state["optimizer"])
        if box.lr_scheduler is not None:
            box.lr_scheduler.load_state_dict(state["scheduler"])
        parameters = [parameter for group in box.optimizer.param_groups for parameter in group["params"]]
        for parameter, gradient in zip(parameters, state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        box.stage_grad_count = state["batches_since_stage"]
        set_random_state(self.epoch_began if self.at["steps"] else self.now)

    def take_back_rows(self) -> None:
        """Takes back what was written of steps that are made again."""
        history = self.run_dir / "history.jsonl"
        if history.is_file():
            rows = history.read_bytes().splitlines(keepends=True)
            write_atomically(history, b"".join(rows[: self.at["rows"]]))
        self.events.close()
        self.events = self.open_events(purge_step=self.at["all_steps"] + 1)

    def take_step(self, x: Tensor, targets: object, supp_dict: dict, autocast: str | None, place: str) -> float:
        """One forward, backward and update; the aux loss of the entropy bottlenecks reaches their quantiles alone."""
        context = torch.autocast(self.device.type, getattr(torch, autocast)) if autocast else nullcontext()
        with context:
            loss = self.box.forward_process(x, targets, supp_dict)
        value = self.of_whole_batch(float(loss.detach()))
        if not math.isfinite(value):
            terms = ", ".join(f"{name} {term:g}" for name, term in self.terms.items())
            raise UserError(
                f"the loss is not finite in {place} ({terms}): lower the learning rate or set max_grad_norm"
            )
        if isinstance(self.trained, SplitClassifier):
            aux_loss = self.trained.aux_loss()
            if aux_loss.requires_grad:  # not where a stage freezes the entropy model
                aux_loss.backward()
        self.box.post_forward_process(loss=loss)
        return value

    def of_whole_batch(self, loss: float) -> float:
        """Returns the loss of all ranks' parts together, and makes `terms` its terms."""
        loss, *terms = self.ranks.mean([loss, *self.terms.values()])
        self.terms.update(zip(self.terms, terms, strict=True))
        return loss

    def report(self, bar, place: str, means: dict[str, float], val: dict[str, float]) -> None:
        """Writes one line per epoch, and the same numbers as history and TensorBoard events."""
        seconds = self.at["seconds"]
        losses = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        size = f", {val['bits_per_image'] / 8:.1f} bytes/image" if "bits_per_image" in val else ""
        line = f"{place}: {losses} | val top-1 {val['top1']:.2f} %{size} | {seconds:.0f} s"
        bar.write(line)
        logger.info(line)
        self.write_events("epoch", means)
        self.write_events("val", val)
        self.events.add_scalar("lr", self.box.optimizer.param_groups[0]["lr"], self.at["all_steps"])
        row = {"stage": self.at["stage"], "epoch": self.at["epoch"], **means}
        row |= {f"val_{name}": value for name, value in val.items()}
        with open(self.run_dir / "history.jsonl", "a") as history:
            history.write(json.dumps({**row, "seconds": round(seconds, 1)}) + "\n")

    def write_events(self, group: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(f"{group}/{name}", value, self.at["all_steps"])

    def keep_best(self, path: Path, top1: float) -> None:
        if top1 >= self.best_top1:
            self.best_top1 = top1
            if self.ranks.first:
                save_weights(self.trained, path, self.first.get("tail"), val_top1=round(top1, 3))


def record_terms(criterion: nn.Module, terms: dict[str, float]) -> None:
    """Keeps every term's last weighted value in `terms`; torchdistill's sum does not."""
    terms.clear()
    for name, (term, weight) in criterion.term_dict.items():

        def keep(module: nn.Module, inputs: tuple, output: Tensor, name: str = name, weight: float = weight) -> None:
            terms[name] = weight * float(output.detach())

        term.register_forward_hook(keep)


def freeze_statistics(model: nn.Module) -> None:
    """Puts modules whose parameters are all frozen into evaluation mode: their batch statistics must not move."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def to_device(batch: Tensor | dict[str, Tensor], device: torch.device) -> Tensor | dict[str, Tensor]:
    """Moves images (to channels last), labels, or a dict of labels and maps to a device."""
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    layout = torch.channels_last if batch.ndim == 4 else torch.preserve_format
    return batch.to(device, non_blocking=True, memory_format=layout)
