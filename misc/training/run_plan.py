"""A run: decide from its flags and its folder what to do, before anything is built, and train as decided."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torchdistill.common.main_util import set_seed

from misc.config import LoadedConfig
from misc.devices import usable_autocast
from misc.distributed.ranks import ALONE, Ranks, describe_device
from misc.training.checkpoint import describe_resume_point, find_checkpoint
from misc.training.checks import check_training, other_classifiers_maps, stages_of
from misc.training.loop import train
from misc.training.run_folder import WEIGHTS, find_weights, resume_run, start_run


class Plan(NamedTuple):
    """What to do before the test.

    Attributes:
        train: whether to train at all.
        weights: to load first, for training or for the test; None leaves the models as they are built.
        checkpoint: to resume the training from; None begins a training.
    """

    train: bool
    weights: Path | None = None
    checkpoint: dict[str, Any] | None = None

    @property
    def overwrites_parameters(self) -> bool:
        """Whether the trained model's parameters are loaded after it is built."""
        return self.weights is not None or self.checkpoint is not None


def plan_run(
    entry: dict,
    run_dir: Path,
    resolved_config: str,
    seed: int,
    *,
    test_only: bool = False,
    skip_ckpt: bool = False,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> Plan:
    """Decide whether a run trains, and what it starts from; all ranks decide alike.

    Args:
        entry: the trained model's in the config.
        run_dir: the run's folder, which need not exist.
        resolved_config: text of the config, which a run to resume must share.
        seed: which a run to resume must share.
        test_only: do not train.
        skip_ckpt: train from scratch, whatever weights exist.
        resume: continue from the run's checkpoint; a run that has ended is only tested.
        ranks: processes that share the run.

    Raises:
        UserError: no weights where some are needed, or a run that cannot be resumed.
    """
    checkpoint = None
    if resume:
        checkpoint = ranks.from_first(lambda: find_checkpoint(run_dir, resolved_config, seed, ranks))
    if checkpoint is not None:
        return Plan(train=True, checkpoint=checkpoint)
    has_ended = resume and (run_dir / WEIGHTS).is_file()
    train = not (test_only or has_ended)
    if train and skip_ckpt:
        return Plan(train=True)
    return Plan(train, find_weights(entry, run_dir, are_needed=test_only))


def train_run(
    config: LoadedConfig,
    models: dict[str, nn.Module],
    device: torch.device,
    run_dir: Path,
    checkpoint: dict[str, Any] | None,
    ranks: Ranks,
    origin: dict[str, Any],
) -> Path:
    """Open the run's folder and train in it.

    Args:
        config: in the mode "train".
        models: by the config's names, the same on all ranks.
        device: where they are.
        run_dir: the run's folder.
        checkpoint: of the run to resume; None begins a run.
        ranks: processes that share the run.
        origin: as `misc.training.run_folder.provenance` returns it.

    Returns:
        The path of the trained weights.
    """
    check_training(config.data, models)
    ranks.wait()  # another rank may still be looking into the run folder
    seed = origin["seed"]
    if not ranks.first:
        set_seed(ranks.own_seed(seed))  # noise and augmentation are each rank's own; the models are built by now
    elif checkpoint is None:
        start_run(run_dir, config.resolved, seed)
    else:
        resume_run(run_dir, seed)
    resumed = "" if checkpoint is None else f", resumed at {describe_resume_point(checkpoint)}"
    print(f"Training on {describe_device(device, ranks)} in {run_dir}{resumed}", flush=True)
    for line in other_classifiers_maps(config.data):
        print(line, flush=True)
    wanted = [stage.get("autocast") for stage in stages_of(config.data["train"])]
    if any(usable_autocast(dtype, device) != dtype for dtype in wanted):
        print("Computing in float32: this CPU has no fast bfloat16", flush=True)
    weights = train(config.data, models, device, run_dir, checkpoint, ranks, **origin)
    print(f"Weights: {weights}")
    return weights
