"""Compare training with one process and with several: images per second, and differences between gradients.

    python scripts/benchmarks/ranks.py --config config/quickstart/phd_swin.yaml

The gradients are those of the first stage's first batch, in float32, before clipping. Images and quantisation noise are
the same for any number of processes, and layers whose result depends on the process (batch statistics, dropped paths)
are in evaluation mode, so that only rounding can differ. The rate is that of training as configured, including the
reading of images. On a CPU each process uses OMP_NUM_THREADS threads, one by default.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from compressai.entropy_models import EntropyBottleneck, EntropyModel
from timm.layers import DropPath
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torchdistill.common.main_util import set_seed
from torchdistill.datasets.util import build_data_loader

from misc.config import load_config
from misc.config.entries import build_model, check_teacher, trained_model
from misc.devices import default_device, usable_autocast
from misc.distributed.launch import in_processes
from misc.distributed.ranks import Ranks, joined_ranks, own_device
from misc.errors import UserError, exit_on_user_error
from misc.tables import text_table
from misc.training.checks import check_shares, stages_of
from misc.training.step import TrainingStep, make_box

WARM_UP = 3  # steps
OF_EACH_RANK = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, DropPath)


class Measured(NamedTuple):
    """Gradients of all trained parameters, (N,), and images per second of all processes together."""

    gradients: np.ndarray
    images_per_second: float


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="config to train")
    add("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    add("--processes", type=int, default=2, help="to compare with one (default: %(default)s)")
    add("--steps", type=int, default=30, help=f"to time, after {WARM_UP} for warm-up (default: %(default)s)")
    add("--device", default=default_device(), help="cpu or cuda (default here: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    if min(args.processes, args.steps) < 1:
        raise UserError("--processes and --steps must be at least 1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it would report a UserError as a crash
    what = (args.config, args.set, args.device, args.steps)
    try:
        one, several = (in_processes(number, measure, *what)[0] for number in (1, args.processes))
    except ChildFailedError:
        raise UserError("a process failed, see above") from None
    rows = [["processes", "images/s", "relative"], ["1", f"{one.images_per_second:.1f}", "1.00"]]
    relative = several.images_per_second / one.images_per_second
    rows.append([str(args.processes), f"{several.images_per_second:.1f}", f"{relative:.2f}"])
    print(f"torch {torch.__version__} on {args.device}, {args.config}\n{text_table(rows)}")
    difference, largest = np.abs(several.gradients - one.gradients).max(), np.abs(one.gradients).max()
    print(f"largest difference of gradients {difference:.2g}, largest gradient {largest:.2g}")


@exit_on_user_error
def measure(path: str, overrides: list[str], device_name: str, steps: int) -> Measured:
    """Measure the first stage of a config on this rank, with the others."""
    with joined_ranks() as ranks:
        device = own_device(device_name, ranks)
        set_seed(0)  # loading a config builds parts of models
        with ranks.first_ahead():
            config = load_config(path, overrides).data
        check_shares(config, ranks)
        check_teacher(config["models"].get("teacher_model"))
        batch = first_batch(config)
        models = {name: build_model(name, entry, device) for name, entry in config["models"].items()}
        box = make_box(config, models, device, ranks)
        box.pre_epoch_process(epoch=1)
        step = TrainingStep(box, trained_model(models), device, ranks)
        step.begin_stage()
        gradients = first_gradients(step, batch)
        step.autocast = usable_autocast(stages_of(config["train"])[0].get("autocast"), device)
        return Measured(gradients, rate(step, steps))


def first_batch(config: dict) -> list:
    """Return the first batch of the first stage, the same on all ranks."""
    loader_config = {**stages_of(config["train"])[0]["train_data_loader"], "requires_supp": True}
    return next(iter(build_data_loader(config["datasets"][loader_config["dataset_id"]], loader_config, False)))


def first_gradients(step: TrainingStep, batch: list) -> np.ndarray:
    """Take one step with this rank's part of a batch; return the gradients, (N,), as the optimizer gets them."""
    x, targets, supp_dict = batch
    of_each_rank = [module for module in step.trained.modules() if isinstance(module, OF_EACH_RANK)]
    for module in of_each_rank:
        module.eval()
    clip, step.box.max_grad_norm = step.box.max_grad_norm, None
    seen: list[Tensor] = []
    hook = step.box.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.extend(gradients_of(optimizer)))
    with noise_of_the_whole_batch(step.ranks):
        step.take(part(x, step.ranks), part(targets, step.ranks), supp_dict, "the benchmark")
    hook.remove()
    step.box.max_grad_norm = clip
    for module in of_each_rank:
        module.train()
    return torch.cat(seen).cpu().numpy()


def part(batch: Tensor | dict[str, Tensor], ranks: Ranks) -> Tensor | dict[str, Tensor]:
    """Return this rank's part of images or targets."""
    return {key: part(value, ranks) for key, value in batch.items()} if isinstance(batch, dict) else ranks.share(batch)


def gradients_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Return copies of all gradients, flattened."""
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    return (parameter.grad.flatten().clone() for parameter in parameters if parameter.grad is not None)


@contextmanager
def noise_of_the_whole_batch(ranks: Ranks) -> Iterator[None]:
    """Quantise with the noise that a single rank would draw for the whole batch; each rank uses its images' part."""
    quantize, generator = EntropyModel.quantize, torch.Generator().manual_seed(0)

    def with_common_noise(self: EntropyModel, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        if mode != "noise":
            return quantize(self, inputs, mode, means)
        axis = -1 if isinstance(self, EntropyBottleneck) else 0  # it takes (C, 1, B * H * W), the others (B, C, H, W)
        shape = list(inputs.shape)
        shape[axis] *= ranks.world_size
        noise = torch.rand(shape, generator=generator) - 0.5
        return inputs + noise.chunk(ranks.world_size, axis)[ranks.rank].to(inputs)

    EntropyModel.quantize = with_common_noise
    try:
        yield
    finally:
        EntropyModel.quantize = quantize


def rate(step: TrainingStep, number: int) -> float:
    """Return the images per second that all ranks train on together, over a number of steps after warm-up."""
    batches = islice(chain.from_iterable(repeat(step.box.train_data_loader)), WARM_UP + number)
    images, start = 0, 0.0
    for index, (x, targets, supp_dict) in enumerate(batches):
        if index == WARM_UP:
            images, start = 0, time.perf_counter()
        step.take(x, targets, supp_dict, "the benchmark")
        images += len(x)
    step.ranks.wait()
    return images * step.ranks.world_size / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
