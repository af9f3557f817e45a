"""Checks before training that need the built models and data sets."""

import inspect
import math

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchdistill.datasets.util import build_data_loader
from torchdistill.losses.registry import get_high_level_loss
from torchdistill.optim.registry import SCHEDULER_DICT

from misc.config.entries import trained_model
from misc.distributed.batches import check_batches
from misc.distributed.gradients import check_terms
from misc.distributed.ranks import Ranks
from misc.errors import UserError, did_you_mean
from model.backbone import Backbone
from model.classifier import create_timm_model
from model.split import SplitClassifier
from model.weights import digest

RATE = "rate"  # the term of a loss that may warm up


def stages_of(train_config: dict) -> list[dict]:
    """Return the stages of a config's `train` in the order of their numbers; without stages, it is its only one."""
    names = [f"stage{number}" for number in range(1, len(train_config) + 1)]
    return [train_config[name] for name in names if name in train_config] or [train_config]


def loss_terms(stage: dict) -> dict[str, dict]:
    """Return the terms of a stage's loss by their names."""
    return stage["criterion"].get("kwargs", {}).get("sub_terms") or {}


def check_tails(models: dict[str, nn.Module]) -> None:
    """Refuse a student whose tail is not the teacher's: it would learn features that its tail does not expect.

    Call before the student's own weights are loaded, which may hold a fine-tuned tail.

    Raises:
        UserError: the tails differ.
    """
    teacher, student = models.get("teacher_model"), models.get("student_model")
    both_cut = isinstance(teacher, Backbone) and isinstance(student, SplitClassifier)
    if both_cut and digest(teacher.tail) != digest(student.tail):
        raise UserError("teacher_model and the student's backbone have different tails: give both the same weights")


def check_shares(config: dict, ranks: Ranks) -> None:
    """Refuse batches and losses that several ranks cannot share; needs the data sets, no models.

    Raises:
        UserError: names the stage, and its loader or the term of its loss.
    """
    if ranks.alone:
        return
    for number, stage in enumerate(stages_of(config["train"]), 1):
        place = f"stage {number}, train_data_loader"
        check_batches(place, build_loader(config, stage["train_data_loader"], place), ranks)
        check_terms(f"stage {number}, criterion", get_high_level_loss(stage["criterion"]))


def check_training(config: dict, models: dict[str, nn.Module]) -> None:
    """Refuse a config whose training would fail, or silently ignore a part of it, only after it has begun.

    Raises:
        UserError: no `test`, or a stage without val_data_loader; a stage's module path that is not in its model, with
            the nearest one; a stage with fewer images than a batch, or with a number of classes other than the model's;
            a schedule of another length than its stage; a rate that is weighted by levels and by lmbda; parameter
            groups under the key that torchdistill's other box reads.
    """
    trained = trained_model(models)
    if "test" not in config:
        raise UserError("the config has no 'test': every training ends with a test")
    _num_batches(config, config["test"]["test_data_loader"], "test, test_data_loader")
    roles = {"teacher": "teacher_model", "student": "student_model", "model": "model"}
    for number, stage in enumerate(stages_of(config["train"]), 1):
        if "val_data_loader" not in stage:
            raise UserError(f"stage {number} has no val_data_loader: it chooses the best epoch")
        images = config["datasets"][stage["train_data_loader"]["dataset_id"]]
        steps = _num_batches(config, stage["train_data_loader"], f"stage {number}, train_data_loader")
        _num_batches(config, stage["val_data_loader"], f"stage {number}, val_data_loader")
        if not steps:
            size = build_loader(config, stage["train_data_loader"], "").batch_size
            raise UserError(
                f"stage {number} has no step to take: {len(images)} images are fewer than a batch of {size}"
            )
        check_schedule(f"stage {number}", stage, steps)
        check_levels_weight(f"stage {number}", stage)
        check_warmup(f"stage {number}", stage)
        check_bn_momentum(f"stage {number}", stage)
        labels, classes = _num_labels(images), _num_classes(trained)
        if labels not in (None, classes):
            raise UserError(f"stage {number}: the data set has {labels} classes, the model {classes}")
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


def other_classifiers_maps(config: dict) -> list[str]:
    """Return a line per stage whose saliency maps explain another classifier than the teacher.

    The two are told apart by their tensors. Maps of another classifier are a valid experiment, and an easy mistake.
    """
    stages = enumerate(stages_of(config["train"]), 1)
    trained_on = {number: config["datasets"][stage["train_data_loader"]["dataset_id"]] for number, stage in stages}
    maps = {number: images.maps for number, images in trained_on.items() if getattr(images, "has_maps", False)}
    if not maps or "teacher_model" not in config["models"]:
        return []
    teacher = {**config["models"]["teacher_model"]["kwargs"]}
    teacher.pop("split_idx", None)
    with torch.random.fork_rng(devices=[]):  # the training has the same random numbers with this check and without
        teacher_sha256 = digest(create_timm_model(**teacher))
    lines = []
    for number, folder in maps.items():
        settings = folder.manifest.get("settings", {})
        if settings.get("model_sha256", teacher_sha256) != teacher_sha256:
            name = settings["model"]
            whose = f"{name} with other weights" if name == teacher["name"] else name
            lines.append(f"Stage {number}: the maps in {folder.root} are those of {whose}, not of the teacher")
    return lines


def check_levels_weight(place: str, stage: dict) -> None:
    """Refuse a rate that is weighted by the lmbda of each image's level and by another lmbda as well.

    Args:
        place: names the stage in the error.
        stage: its config.

    Raises:
        UserError: names the term.
    """
    for name, term in loss_terms(stage).items():
        has_levels = (term["criterion"].get("kwargs") or {}).get("gains_path") is not None
        if has_levels and term["weight"] != 1:
            raise UserError(
                f"{place}: the term '{name}' is weighted by the lmbda of each level, and again by {term['weight']}: "
                "leave lmbda at 1.0 and change the entropy model's levels"
            )


def check_warmup(place: str, stage: dict) -> None:
    """Refuse a warm-up of the rate that is no share of the stage, or of a loss without a rate.

    The arguments are those of `check_levels_weight`.

    Raises:
        UserError: names the stage.
    """
    share, terms = stage.get("rate_warmup") or 0, loss_terms(stage)
    if not 0 <= share <= 1:
        raise UserError(f"{place}: rate_warmup is {share:g}; expected a share of the stage's steps, 0 to 1")
    if share and RATE not in terms:
        raise UserError(f"{place}: rate_warmup needs a term '{RATE}' in the criterion{did_you_mean(RATE, terms)}")


def check_bn_momentum(place: str, stage: dict) -> None:
    """Refuse a momentum of batch normalisation that is no weight of one batch among others.

    The arguments are those of `check_levels_weight`.

    Raises:
        UserError: names the stage.
    """
    momentum = stage.get("bn_momentum")
    if momentum is not None and not 0 < momentum < 1:
        raise UserError(f"{place}: bn_momentum is {momentum:g}; expected a number between 0 and 1, such as 0.005")


def _num_batches(config: dict, loader_config: dict, place: str) -> int:
    return len(build_loader(config, loader_config, place))


def build_loader(config: dict, loader_config: dict, place: str) -> DataLoader:
    """Return one of a config's loaders; `place` names it in the error.

    Raises:
        UserError: arguments that no DataLoader takes.
    """
    try:
        return build_data_loader(config["datasets"][loader_config["dataset_id"]], loader_config, distributed=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {error}") from error


def _num_labels(images: Dataset) -> int | None:
    """Return the number of a data set's labels; None if it is not known."""
    if hasattr(images, "num_classes"):
        return images.num_classes
    return len(images.classes) if hasattr(images, "classes") else None


def _num_classes(model: nn.Module) -> int:
    """Return the number of outputs of the classifier, the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1].out_features


def _check_module_path(path: str, model: nn.Module, place: str) -> None:
    modules = dict(model.named_modules())
    modules.pop("")
    # torchdistill builds adaptations (+) itself; instance(...) stands for a class, a dot for the whole model.
    if path not in modules and path != "." and not path.startswith(("+", "instance(")):
        raise UserError(f"{place}: {type(model).__name__} has no module '{path}'{did_you_mean(path, modules)}")


def plan_schedules(config: dict) -> None:
    """Set `total_steps` of schedulers that have it (OneCycleLR) to the length of their stage; in place.

    A config gives epochs; the number of steps follows from the data. A scheduler whose config sets its length is left
    alone.
    """
    for number, stage in enumerate(stages_of(config["train"]), 1):
        scheduler = stage.get("scheduler")
        if not scheduler or _planned_steps(scheduler["kwargs"]) is not None:
            continue
        if "total_steps" in inspect.signature(SCHEDULER_DICT[scheduler["key"]]).parameters:
            place = f"stage {number}, train_data_loader"
            steps = _scheduler_steps(stage, _num_batches(config, stage["train_data_loader"], place))
            stage["scheduler"] = {**scheduler, "kwargs": {**scheduler["kwargs"], "total_steps": steps}}


def check_schedule(place: str, stage: dict, num_batches: int) -> None:
    """Refuse a learning rate schedule whose configured length is not its stage's.

    Args:
        place: names the stage in the error.
        stage: its config.
        num_batches: of one epoch.

    Raises:
        UserError: names both lengths.
    """
    scheduler = stage.get("scheduler") or {}
    planned, taken = _planned_steps(scheduler.get("kwargs", {})), _scheduler_steps(stage, num_batches)
    if planned is not None and planned != taken:
        raise UserError(
            f"{place} takes {taken} scheduler steps, its scheduler is set up for {planned}: "
            "leave total_steps, epochs and steps_per_epoch out, they follow from the data"
        )


def _planned_steps(kwargs: dict) -> int | None:
    """Return the length in steps that a scheduler's arguments set; None if they set none."""
    if {"epochs", "steps_per_epoch"} <= kwargs.keys():
        return kwargs.get("total_steps") or kwargs["epochs"] * kwargs["steps_per_epoch"]
    return kwargs.get("total_steps")


def _scheduler_steps(stage: dict, num_batches: int) -> int:
    """Return how often torchdistill steps the scheduler in the whole stage."""
    every = stage["scheduler"].get("scheduling_step", 0) if stage.get("scheduler") else 0
    if not every:
        return stage["num_epochs"]
    accumulated = stage.get("optimizer", {}).get("grad_accum_step", 1)
    return stage["num_epochs"] * num_batches // math.lcm(every, accumulated)
