"""Training loop around torchdistill's boxes: stages, epochs, validation, checkpoints."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.core.distillation import DistillationBox
from torchdistill.core.training import TrainingBox
from tqdm import tqdm

from misc.config.entries import trained_model
from misc.devices import usable_autocast
from misc.distributed.ranks import ALONE, Ranks
from misc.evaluation.accuracy import validate
from misc.progress import progress_bar
from misc.training.checkpoint import Progress, random_state, remove_checkpoints, save_checkpoint, set_random_state
from misc.training.checks import stages_of
from misc.training.feature_variance import set_variances
from misc.training.record import RunRecord
from misc.training.run_folder import WEIGHTS
from misc.training.step import TrainingStep, freeze_statistics, make_box
from model.split import SplitClassifier, load_into
from model.weights import digest, save_weights

CHECKPOINT_EVERY = 600  # seconds, and at the end of every epoch


def train(
    config: dict,
    models: dict[str, nn.Module],
    device: torch.device,
    run_dir: Path,
    checkpoint: dict[str, Any] | None = None,
    ranks: Ranks = ALONE,
    **facts: object,
) -> Path:
    """Train `models["student_model"]`, or `models["model"]`, through every stage of `config["train"]`.

    Each stage saves the weights of its best epoch by top-1 on the validation set (of equal ones, the latest); the next
    stage continues from the weights of the last epoch. The last stage's best become the run's weights, with the coder's
    tables in them. On a CPU, a resumed run yields weights bit-identical to an uninterrupted one's.

    Several ranks share every batch and take the steps that one process would, except that noise, augmentation and batch
    statistics are those of each rank's part; the first rank's statistics are validated and saved. Only the first rank
    writes.

    Args:
        config: as `misc.config` constructs it.
        models: by the config's names.
        device: where all of them are.
        run_dir: the run's folder.
        checkpoint: of the run to resume; None begins a run.
        ranks: processes that share the training; all start from the first rank's weights.
        **facts: kept in the weights' metadata beside the validation accuracy.

    Returns:
        The path of the weights in the run folder.

    Raises:
        UserError: the loss is not finite; names stage, epoch, step and the terms' values.
    """
    trained, weights = trained_model(models), run_dir / WEIGHTS
    set_variances(config, models, device, run_dir, ranks)
    loop = TrainingLoop(make_box(config, models, device, ranks), config["train"], trained, device, run_dir, ranks)
    if checkpoint is not None:
        loop.restore(checkpoint)
    best = loop.run()
    if ranks.first:
        load_into(trained, best)
        initial = loop.initial_digests
        if isinstance(trained, SplitClassifier) and digest(trained.entropy_model) != initial["entropy_model"]:
            trained.update(force=True, update_quantiles=True)
        if isinstance(trained, SplitClassifier):
            facts["backbone"] = trained_model(config["models"])["kwargs"]["backbone"]["name"]
        save_weights(trained, weights, initial.get("tail"), val_top1=round(loop.best_top1, 3), **facts)
        remove_checkpoints(run_dir)
    ranks.wait()
    if not ranks.first:
        load_into(trained, weights)
    return weights


class TrainingLoop:
    """Stages, epochs and steps of one run, with validation, checkpoints and the best weights of each stage.

    All ranks execute it alike; the first one writes.

    Args:
        box: as `make_box` builds it.
        train_config: the config's `train`.
        trained: the model that is trained.
        device: where it is.
        run_dir: the run's folder.
        ranks: processes that share the training.

    Attributes:
        progress: how far the run has come.
        best_top1: of the current stage, in percent.
        initial_digests: digests, before the first step, of the parts that a training may leave untouched.
        epoch_rng: the random state at the beginning of the epoch.
        resume_rng: the random state of the checkpoint from which the run was resumed.
    """

    def __init__(
        self,
        box: DistillationBox | TrainingBox,
        train_config: dict,
        trained: nn.Module,
        device: torch.device,
        run_dir: Path,
        ranks: Ranks = ALONE,
    ):
        self.box = box
        self.stages = stages_of(train_config)
        self.trained = trained
        self.device = device
        self.run_dir = run_dir
        self.ranks = ranks
        self.step = TrainingStep(box, trained, device, ranks)
        self.record = RunRecord(run_dir) if ranks.first else None
        self.progress = Progress()
        self.best_top1 = -math.inf
        parts = ("tail", "entropy_model") if isinstance(trained, SplitClassifier) else ()
        self.initial_digests = {part: digest(getattr(trained, part)) for part in parts}
        self.epoch_rng = random_state()
        self.resume_rng: dict[str, Any] = {}
        self.saved_at = time.monotonic()

    def run(self) -> Path:
        """Run the stages that are left; return the path of the last stage's best weights."""
        if self.progress == Progress():
            self.save()
        for stage_config in self.stages[self.progress.stage - 1 :]:
            self.run_stage(stage_config)
        if self.record is not None:
            self.record.close()
        return self.best_weights(len(self.stages))

    def best_weights(self, stage: int) -> Path:
        """Return the path of a stage's best weights."""
        return self.run_dir / f"stage{stage}_best.safetensors"

    def stage_model(self) -> nn.Module:
        """Return the trained model as the stage rearranges it, with the adaptations that it adds."""
        return self.box.student_model if isinstance(self.box, DistillationBox) else self.box.model

    def run_stage(self, stage_config: dict) -> None:
        """Train the epochs that are left of a stage."""
        stage, num_epochs = self.progress.stage, stage_config["num_epochs"]
        loader = self.box.train_data_loader
        images = min(len(loader.sampler), len(loader) * (loader.batch_size or len(loader.sampler)))
        self.ranks.broadcast(self.trained, self.stage_model())
        autocast = usable_autocast(stage_config.get("autocast"), self.device)
        self.step.begin_stage(autocast, stage_config.get("rate_warmup") or 0.0, stage_config.get("bn_momentum"))
        done = (self.progress.epoch - 1) * images
        with progress_bar(None, f"stage {stage}", num_epochs * images, initial=done) as bar:
            while self.progress.stage == stage:
                self.run_epoch(num_epochs, bar)

    def run_epoch(self, num_epochs: int, bar: tqdm) -> None:
        """Train the steps that are left of an epoch, validate, and save."""
        self.box.pre_epoch_process(epoch=self.progress.epoch)
        freeze_statistics(self.trained)
        losses = self.run_steps(num_epochs, bar)
        self.ranks.broadcast(self.trained, self.stage_model())  # batch statistics are each rank's own
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed, even if nothing uses it
            validation = validate(self.trained, self.box.val_data_loader, self.device, self.ranks)
        if self.record is not None:
            learning_rate = self.box.optimizer.param_groups[0]["lr"]
            bar.write(self.record.add_epoch(self.progress, num_epochs, losses, validation, learning_rate))
        self.keep_best(validation["top1"])
        # At the end of a stage this advances the box to the next stage's models, data and loss.
        self.box.post_epoch_process(metrics=validation["top1"])
        self.advance(num_epochs)
        self.save()

    def run_steps(self, num_epochs: int, bar: tqdm) -> dict[str, float]:
        """Take the steps that are left of an epoch; return the means of the loss and its terms over all its steps."""
        progress, start = self.progress, time.perf_counter() - self.progress.epoch_seconds
        steps_per_epoch = len(self.box.train_data_loader)
        for x, targets, supp_dict in self.remaining_batches(bar):
            place = f"stage {progress.stage}, epoch {progress.epoch}, step {progress.epoch_steps + 1}"
            self.step.weigh_rate((progress.epoch - 1 + progress.epoch_steps / steps_per_epoch) / num_epochs)
            losses = {"loss": self.step.take(x, targets, supp_dict, place), **self.step.loss_terms}
            progress.add_step(losses, time.perf_counter() - start)
            if self.record is not None:
                self.record.add_step(progress.total_steps, losses)
            bar.update(len(x) * self.ranks.world_size)
            if progress.epoch_steps < steps_per_epoch and self.is_save_due():
                self.save()
        return progress.mean_losses()

    def remaining_batches(self, bar: tqdm) -> Iterator:
        """Return the epoch's batches without those of steps taken before the checkpoint."""
        loader = self.box.train_data_loader
        # New workers for every epoch: persistent ones would carry random states that no checkpoint can hold.
        loader._iterator = None
        if self.progress.epoch_steps == 0:
            self.epoch_rng = random_state()
            return iter(loader)
        batches = iter(loader)
        for _ in range(self.progress.epoch_steps):
            bar.update(len(next(batches)[0]) * self.ranks.world_size)
        set_random_state(self.resume_rng)
        return batches

    def advance(self, num_epochs: int) -> None:
        """Move on to the next epoch or, after the stage's last one, to the next stage."""
        if self.progress.epoch < num_epochs:
            self.progress = self.progress.next_epoch()
            return
        self.progress = self.progress.next_stage()
        if self.progress.stage <= len(self.stages):
            self.best_top1 = -math.inf

    def keep_best(self, top1: float) -> None:
        """Save the weights if no earlier epoch of the stage was better."""
        if top1 < self.best_top1:
            return
        self.best_top1 = top1
        if self.ranks.first:
            path = self.best_weights(self.progress.stage)
            save_weights(self.trained, path, self.initial_digests.get("tail"), val_top1=round(top1, 3))

    def is_save_due(self) -> bool:
        """Whether it is time for a checkpoint, by the mean of all ranks' clocks: they must save together."""
        return self.ranks.mean([time.monotonic() - self.saved_at])[0] > CHECKPOINT_EVERY

    def save(self) -> None:
        """Write a checkpoint; apart from random states, the first rank's state is that of all."""
        random_states = self.ranks.gather([{"epoch": self.epoch_rng, "now": random_state()}])
        if self.ranks.first:
            save_checkpoint(self.run_dir, {**self.state(), "random_states": random_states})
        self.saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return the state that all ranks share."""
        scheduler = self.box.lr_scheduler
        return {
            "progress": asdict(self.progress),
            "best_top1": self.best_top1,
            "initial_digests": self.initial_digests,
            "model": self.trained.state_dict(),
            "stage_model": self.stage_model().state_dict(),  # tensors that it shares with the model are stored once
            "optimizer": self.box.optimizer.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "gradients": [parameter.grad for parameter in self.parameters()],  # accumulated over batches
            "batches_since_stage": self.box.stage_grad_count,
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the stage's optimizer updates."""
        return [parameter for group in self.box.optimizer.param_groups for parameter in group["params"]]

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Bring the loop, and a box that was just built, to the state in which `save` was called."""
        self.progress = Progress(**checkpoint["progress"])
        self.best_top1 = checkpoint["best_top1"]
        self.initial_digests = checkpoint["initial_digests"]
        random_states = checkpoint["random_states"][self.ranks.rank]
        self.epoch_rng, self.resume_rng = random_states["epoch"], random_states["now"]
        if self.record is not None:
            self.record.rewind(self.progress)
        if self.progress.stage <= len(self.stages):
            self.restore_box(checkpoint)
            set_random_state(self.epoch_rng if self.progress.epoch_steps else self.resume_rng)

    def restore_box(self, checkpoint: dict[str, Any]) -> None:
        """Advance the box to the checkpoint's stage and load models, optimizer, scheduler and gradients."""
        box, earlier_stages = self.box, self.stages[: self.progress.stage - 1]
        for _ in earlier_stages:
            box.advance_to_next_stage()
        box.current_epoch = sum(stage["num_epochs"] for stage in earlier_stages) + self.progress.epoch - 1
        self.trained.load_state_dict(checkpoint["model"])
        self.stage_model().load_state_dict(checkpoint["stage_model"])
        box.optimizer.load_state_dict(checkpoint["optimizer"])
        if box.lr_scheduler is not None:
            box.lr_scheduler.load_state_dict(checkpoint["scheduler"])
        for parameter, gradient in zip(self.parameters(), checkpoint["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        box.stage_grad_count = checkpoint["batches_since_stage"]
