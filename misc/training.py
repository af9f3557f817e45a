"""Training through torchdistill's boxes: what they leave to the caller, and nothing they do."""

import json
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchdistill.core.distillation import DistillationBox, get_distillation_box
from torchdistill.core.training import TrainingBox, get_training_box
from torchdistill.datasets.util import build_data_loader

from misc.errors import UserError, did_you_mean
from misc.evaluation import validate
from misc.progress import progress_bar
from misc.weights import digest, load_into, save_weights
from model.backbone import Backbone
from model.split import SplitClassifier

LOG_EVERY = 50
logger = logging.getLogger(__name__)


def train(config: dict, models: dict[str, nn.Module], device: torch.device, run_dir: Path, **facts: object) -> Path:
    """Trains `models["student_model"]`, or `models["model"]`, through every stage of `config["train"]`.

    Each stage keeps the weights of its best epoch by top-1 on the validation set (the later of equal ones); the next
    stage goes on from the last ones. The last stage's best become the run's weights, with the coder's tables in them.

    Args:
        config: as `misc.config` constructs it.
        models: by the config's names.
        device: where all of them are.
        run_dir: the run's folder.
        **facts: kept in the weights' metadata beside the validation accuracy.

    Returns:
        The weights' path in the run folder.

    Raises:
        UserError: a loss that is not finite, with stage, epoch, step and the terms' values.
    """
    box = make_box(config, models, device)
    trained = models.get("student_model", models.get("model"))
    loop = TrainingLoop(box, config["train"], trained, device, run_dir)
    prior = digest(trained.entropy_model) if isinstance(trained, SplitClassifier) else None
    best = loop.run()
    load_into(trained, best)
    if isinstance(trained, SplitClassifier) and digest(trained.entropy_model) != prior:
        trained.update(force=True, update_quantiles=True)
    final = run_dir / "weights.safetensors"
    save_weights(trained, final, loop.tail_digest, val_top1=round(loop.best_top1, 3), **facts)
    return final


def make_box(config: dict, models: dict[str, nn.Module], device: torch.device) -> DistillationBox | TrainingBox:
    common = (config["datasets"], config["train"], device, None, False, 1)
    if "teacher_model" in models:
        # torchdistill leaves the teacher in the mode it was given in; frozen batch statistics are part of the teacher.
        models["teacher_model"].eval()
        return get_distillation_box(models["teacher_model"], models["student_model"], *common)
    return get_training_box(models["model"], *common)


@dataclass
class TrainingLoop:
    """One run: epochs, steps, validation, log lines, events, the best weights of each stage."""

    box: DistillationBox | TrainingBox
    train_config: dict
    trained: nn.Module
    device: torch.device
    run_dir: Path
    best_top1: float = -math.inf
    step: int = 0
    terms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.tail_digest = digest(self.trained.tail) if isinstance(self.trained, SplitClassifier) else None
        self.events = SummaryWriter(self.run_dir / "events")

    def run(self) -> Path:
        """Runs all stages; returns the path of the last stage's best weights."""
        # By number, as torchdistill goes, whatever their order in the file.
        for number, stage_config in enumerate(stages_of(self.train_config), 1):
            best = self.run_stage(number, stage_config)
        self.events.close()
        return best

    def run_stage(self, number: int, stage_config: dict) -> Path:
        """Trains one stage of `stage_config["num_epochs"]` epochs; returns the path of its best weights."""
        best = self.run_dir / f"stage{number}_best.safetensors"
        self.best_top1 = -math.inf
        record_terms(self.box.criterion, self.terms)
        loader, epochs = self.box.train_data_loader, stage_config["num_epochs"]
        check_steps(f"stage {number}", len(loader) * epochs, self.box.lr_scheduler)
        with progress_bar(None, f"stage {number}", epochs * len(loader.sampler)) as bar:
            for epoch in range(1, epochs + 1):
                start = time.perf_counter()
                self.box.pre_epoch_process(epoch=epoch)
                freeze_statistics(self.trained)
                means = self.run_epoch(f"stage {number}, epoch {epoch}", stage_config.get("autocast"), bar)
                seconds = time.perf_counter() - start
                val = validate(self.trained, self.box.val_data_loader, self.device)
                self.report(bar, f"stage {number} epoch {epoch}/{epochs}", means, val, seconds)
                row = {"stage": number, "epoch": epoch, **means, **{f"val_{k}": v for k, v in val.items()}}
                with open(self.run_dir / "history.jsonl", "a") as history:
                    history.write(json.dumps({**row, "seconds": round(seconds, 1)}) + "\n")
                self.keep_best(best, val["top1"])
                # Last: at the end of a stage it moves the box on, to the next stage's models, data and loss.
                self.box.post_epoch_process(metrics=val["top1"])
        return best

    def run_epoch(self, place: str, autocast: str | None, bar) -> dict[str, float]:
        """Takes one optimisation step per batch; returns the mean of the loss and its terms over steps."""
        totals: dict[str, float] = {}
        steps = 0
        for number, (x, targets, supp_dict) in enumerate(self.box.train_data_loader, 1):
            x, targets = to_device(x, self.device), to_device(targets, self.device)
            loss = self.take_step(x, targets, supp_dict, autocast, f"{place}, step {number}")
            steps = number
            for name, value in {"loss": loss, **self.terms}.items():
                totals[name] = totals.get(name, 0.0) + value
            if self.step % LOG_EVERY == 0:
                self.write_events("train", {"loss": loss, **self.terms})
            bar.update(len(x))
        return {name: total / steps for name, total in totals.items()}

    def take_step(self, x: Tensor, targets: object, supp_dict: dict, autocast: str | None, place: str) -> float:
        """One forward, backward and update; the aux loss of the entropy bottlenecks reaches their quantiles alone."""
        context = torch.autocast(self.device.type, getattr(torch, autocast)) if autocast else nullcontext()
        with context:
            loss = self.box.forward_process(x, targets, supp_dict)
        value = float(loss.detach())
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
        self.step += 1
        return value

    def report(self, bar, place: str, means: dict[str, float], val: dict[str, float], seconds: float) -> None:
        """Writes one line per epoch, and the same numbers as TensorBoard events."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        size = f", {val['bits_per_image'] / 8:.1f} bytes/image" if "bits_per_image" in val else ""
        line = f"{place}: {losses} | val top-1 {val['top1']:.2f} %{size} | {seconds:.0f} s"
        bar.write(line)
        logger.info(line)
        self.write_events("epoch", means)
        self.write_events("val", val)
        self.events.add_scalar("lr", self.box.optimizer.param_groups[0]["lr"], self.step)

    def write_events(self, group: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(f"{group}/{name}", value, self.step)

    def keep_best(self, path: Path, top1: float) -> None:
        if top1 >= self.best_top1:
            self.best_top1 = top1
            save_weights(self.trained, path, self.tail_digest, val_top1=round(top1, 3))


def stages_of(train_config: dict) -> list[dict]:
    """Returns a training's stages in the order of their numbers; one that names no stages is its own."""
    names = [f"stage{number}" for number in range(1, len(train_config) + 1)]
    return [train_config[name] for name in names if name in train_config] or [train_config]


def check_tails(models: dict[str, nn.Module]) -> None:
    """Refuses a student around another tail than the teacher's: the head of one would be distilled for the other's.

    Raises:
        UserError: the tails differ, before the student's own weights are loaded.
    """
    teacher, student = models.get("teacher_model"), models.get("student_model")
    both_cut = isinstance(teacher, Backbone) and isinstance(student, SplitClassifier)
    if both_cut and digest(teacher.tail) != digest(student.tail):
        raise UserError("teacher_model and the student's backbone have different tails: give both the same weights")


def check_training(config: dict, models: dict[str, nn.Module]) -> None:
    """Finds, before any training, what only the built models and data sets can tell.

    Raises:
        UserError: a stage's module path that is not in its model, with the nearest one; a stage with fewer images than
            a batch, or with other classes than the model knows; parameter groups under the name that torchdistill's
            other box reads.
    """
    trained = models.get("student_model") or models["model"]
    if "test" not in config:
        raise UserError("the config has no 'test': a training ends with one")
    roles = {"teacher": "teacher_model", "student": "student_model", "model": "model"}
    for number, stage in enumerate(stages_of(config["train"]), 1):
        if "val_data_loader" not in stage:
            raise UserError(f"stage {number} has no val_data_loader: the best epoch is chosen by it")
        loader_config = stage["train_data_loader"]
        images = config["datasets"][loader_config["dataset_id"]]
        if not len(build_data_loader(images, loader_config, distributed=False)):
            raise UserError(f"stage {number} has no step to take: {len(images)} images are fewer than a batch")
        folders, classes = getattr(images, "classes", None), _num_classes(trained)
        if folders is not None and len(folders) != classes:
            raise UserError(f"stage {number}: the data set has {len(folders)} classes, the model knows {classes}")
        for role, name in roles.items():
            used = stage.get(role, {})
            hooks = [path for paths in used.get("forward_hook", {}).values() for path in paths]
            for path in [*used.get("sequential", []), *used.get("frozen_modules", []), *hooks]:
                _check_module_path(path, models[name], f"stage {number}, {role}")
        optimizer = stage.get("optimizer", {})
        read, ignored = "module_wise_configs", "module_wise_kwargs"
        if "teacher_model" not in models:
            read, ignored = ignored, read
        if ignored in optimizer:
            raise UserError(f"stage {number}, optimizer: {ignored} is not read here, write {read}")
        for group in optimizer.get(read, []):
            _check_module_path(group["module"], trained, f"stage {number}, optimizer")


def _num_classes(model: nn.Module) -> int:
    """Returns the width of the classifier, the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1].out_features


def _check_module_path(path: str, model: nn.Module, place: str) -> None:
    modules = dict(model.named_modules())
    modules.pop("")
    # Adaptations (+) are torchdistill's own to build, instance(...) stands for a class, a point for the whole model.
    if path not in modules and path != "." and not path.startswith(("+", "instance(")):
        raise UserError(f"{place}: {type(model).__name__} has no module '{path}'{did_you_mean(path, modules)}")


def check_steps(place: str, steps: int, scheduler: object) -> None:
    """Refuses a cycle of the learning rate of another length than the stage's.

    Raises:
        UserError: both numbers.
    """
    planned = getattr(scheduler, "total_steps", None)
    if planned is not None and planned != steps:
        raise UserError(f"{place} takes {steps} steps, but its scheduler is set up for {planned}: change its steps")


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
