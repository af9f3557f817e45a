"""What only the built models and data sets can tell, found before any training."""

import inspect
import math

from torch import nn
from torch.utils.data import DataLoader
from torchdistill.datasets.util import build_data_loader
from torchdistill.losses.registry import get_high_level_loss
from torchdistill.optim.registry import SCHEDULER_DICT

from misc.distributed.batches import check_batches
from misc.distributed.gradients import check_terms
from misc.distributed.ranks import Ranks
from misc.errors import UserError, did_you_mean
from model.backbone import Backbone
from model.split import SplitClassifier
from model.weights import digest


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


def check_shares(config: dict, ranks: Ranks) -> None:
    """Finds, before anything is built, what several ranks cannot share.

    Raises:
        UserError: a stage's batches, or a term of its loss.
    """
    if ranks.alone:
        return
    for number, stage in enumerate(stages_of(config["train"]), 1):
        place = f"stage {number}, train_data_loader"
        check_batches(place, _loader(config, stage["train_data_loader"], place), ranks)
        check_terms(f"stage {number}, criterion", get_high_level_loss(stage["criterion"]))


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
    _num_batches(config, config["test"]["test_data_loader"], "test, test_data_loader")
    roles = {"teacher": "teacher_model", "student": "student_model", "model": "model"}
    for number, stage in enumerate(stages_of(config["train"]), 1):
        if "val_data_loader" not in stage:
            raise UserError(f"stage {number} has no val_data_loader: the best epoch is chosen by it")
        images = config["datasets"][stage["train_data_loader"]["dataset_id"]]
        steps = _num_batches(config, stage["train_data_loader"], f"stage {number}, train_data_loader")
        _num_batches(config, stage["val_data_loader"], f"stage {number}, val_data_loader")
        if not steps:
            raise UserError(f"stage {number} has no step to take: {len(images)} images are fewer than a batch")
        check_schedule(f"stage {number}", stage, steps)
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


def _num_batches(config: dict, loader_config: dict, place: str) -> int:
    return len(_loader(config, loader_config, place))


def _loader(config: dict, loader_config: dict, place: str) -> DataLoader:
    try:
        return build_data_loader(config["datasets"][loader_config["dataset_id"]], loader_config, distributed=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {error}") from error


def _num_classes(model: nn.Module) -> int:
    """Returns the width of the classifier, the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1].out_features


def _check_module_path(path: str, model: nn.Module, place: str) -> None:
    modules = dict(model.named_modules())
    modules.pop("")
    # Adaptations (+) are torchdistill's own to build, instance(...) stands for a class, a point for the whole model.
    if path not in modules and path != "." and not path.startswith(("+", "instance(")):
        raise UserError(f"{place}: {type(model).__name__} has no module '{path}'{did_you_mean(path, modules)}")


def plan_schedules(config: dict) -> None:
    """Sets `total_steps` of every scheduler that has it and steps with the batches (OneCycleLR) to its stage's length.

    A config gives epochs alone; how many steps they are follows from the data. In place; a scheduler whose config sets
    its length itself is left as it is.
    """
    for number, stage in enumerate(stages_of(config["train"]), 1):
        scheduler = stage.get("scheduler")
        if not scheduler or not scheduler.get("scheduling_step") or _planned_steps(scheduler["kwargs"]) is not None:
            continue
        if "total_steps" in inspect.signature(SCHEDULER_DICT[scheduler["key"]]).parameters:
            place = f"stage {number}, train_data_loader"
            steps = _scheduler_steps(stage, _num_batches(config, stage["train_data_loader"], place))
            stage["scheduler"] = {**scheduler, "kwargs": {**scheduler["kwargs"], "total_steps": steps}}


def check_schedule(place: str, stage: dict, num_batches: int) -> None:
    """Refuses a learning rate schedule that a config sets to another length than its stage's.

    Args:
        place: names the stage in the error.
        stage: its config.
        num_batches: of one epoch.

    Raises:
        UserError: both numbers.
    """
    scheduler = stage.get("scheduler") or {}
    planned, taken = _planned_steps(scheduler.get("kwargs", {})), _scheduler_steps(stage, num_batches)
    if planned is not None and planned != taken:
        raise UserError(
            f"{place} takes {taken} scheduler steps, its scheduler is set up for {planned}: "
            "leave total_steps, epochs and steps_per_epoch out, they follow from the data"
        )


def _planned_steps(kwargs: dict) -> int | None:
    """Returns the number of steps that a scheduler's own arguments name."""
    if {"epochs", "steps_per_epoch"} <= kwargs.keys():
        return kwargs.get("total_steps") or kwargs["epochs"] * kwargs["steps_per_epoch"]
    return kwargs.get("total_steps")


def _scheduler_steps(stage: dict, num_batches: int) -> int:
    """Returns how often torchdistill steps the scheduler in the whole stage."""
    every = stage["scheduler"].get("scheduling_step", 0) if stage.get("scheduler") else 0
    if not every:
        return stage["num_epochs"]
    accumulated = stage.get("optimizer", {}).get("grad_accum_step", 1)
    return stage["num_epochs"] * num_batches // math.lcm(every, accumulated)
