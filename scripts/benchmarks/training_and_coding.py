"""Time a training step against a bare PyTorch loop, the reading of images, and coding against image codecs.

    python scripts/benchmarks/training_and_coding.py --config config/quickstart/phd_resnet.yaml \
        --runs resources/sweeps/quickstart/phd_*/

The candidates of a comparison take turns in one process; a table gives each one's median over the rounds, in
milliseconds and relative to the first candidate in the same round. All training steps use the same teacher head,
student, loss, optimizer and images. Single images are encoded and decoded on one core.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import nn
from torch.nn import functional as F
from torchdistill.core.distillation import DistillationBox

from misc.config import load_config
from misc.config.entries import build_model, check_teacher
from misc.devices import default_device, share_cores, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.codecs import available_settings
from misc.evaluation.timing import Step, alternate, on_one_core
from misc.tables import text_table
from misc.training.checks import stages_of
from misc.training.run_folder import load_student
from misc.training.step import TrainingStep, make_box, to_device

TORCHDISTILL, BARE = "through torchdistill", "bare loop"
CODECS = {"JPEG": 20, "WebP": 5}  # qualities at which accuracy is near the students'


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--config", required=True, action="append", metavar="FILE", help="of plain head distillation; repeatable")
    add(
        "--runs",
        type=Path,
        nargs="*",
        default=[],
        metavar="RUN",
        help="run folders of students to time",
    )
    add("--rounds", type=int, default=30, help="to time, after five for warm-up (default: %(default)s)")
    add("--compile", action="store_true", help="also measure torch.compile, which takes minutes to warm up")
    add("--device", default=default_device(), help="of training (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    share_cores()
    device = usable_device(args.device)
    print(f"torch {torch.__version__} on {device}, {torch.get_num_threads()} threads")
    for path in args.config:
        config = load_config(path).data
        if len(stages_of(config["train"])) > 1 or "teacher_model" not in config["models"]:
            raise UserError(f"{path}: expected a config of one stage of head distillation")
        check_teacher(config["models"]["teacher_model"])
        torch.manual_seed(0)
        models = {name: build_model(name, entry, device) for name, entry in config["models"].items()}
        box = make_box(config, copy.deepcopy(models), device)
        batches = list(islice(box.train_data_loader, 8))
        size = len(batches[0][0])
        steps = alternate(training_steps(config, models, box, batches, args.compile), args.rounds)
        print(f"\n{path}: one training step of {size} images\n{text_table(table(steps))}")
        reading = images_per_second(box.train_data_loader)
        training = 1000 * size / statistics.median(steps[TORCHDISTILL])
        print(f"images read per second {reading:,.0f}, trained on {training:,.0f}: ratio {reading / training:.2f}")
    for run in args.runs:
        print(f"\n{run.name}, one image\n{text_table(table(alternate(coding_steps(run), args.rounds)))}")


def table(times: Mapping[str, list[float]]) -> list[list[str]]:
    """Return a header and one row per candidate: median milliseconds, and median ratio to the first candidate."""
    first = next(iter(times.values()))
    rows = [["", "ms", "relative"]]
    for name, own in times.items():
        ratio = statistics.median(mine / other for mine, other in zip(own, first, strict=True))
        rows.append([name, f"{statistics.median(own):.1f}", f"{ratio:.3f}"])
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def training_steps(config: dict, models: dict, box: DistillationBox, batches: list, compiled: bool) -> dict[str, Step]:
    """Return one optimisation step in several forms, each with its own copy of the models, on the batches in turn."""
    stage, device = stages_of(config["train"])[0], box.device
    autocast = stage.get("autocast")
    other = None if autocast else "bfloat16"
    forms = {
        BARE: bare(stage, copy.deepcopy(models), device, autocast),
        TORCHDISTILL: through_torchdistill(box, autocast),
        f"bare loop, {other or 'float32'}": bare(stage, copy.deepcopy(models), device, other),
    }
    if compiled:
        forms["bare loop, torch.compile"] = bare(stage, copy.deepcopy(models), device, autocast, compiled=True)
    endless = {name: cycle(batches) for name in forms}
    return {name: lambda form=form, name=name: form(next(endless[name])) for name, form in forms.items()}


def through_torchdistill(box: DistillationBox, autocast: str | None) -> Callable[[list], None]:
    """Return the step that training takes."""
    box.pre_epoch_process(epoch=1)
    step = TrainingStep(box, box.org_student_model, box.device)
    step.begin_stage(autocast)
    return lambda batch: step.take(*batch, "the benchmark")


def bare(
    stage: dict, models: dict, device: torch.device, autocast: str | None, compiled: bool = False
) -> Callable[[list], None]:
    """Return the same step in plain PyTorch."""
    teacher, student = models["teacher_model"].eval(), models["student_model"].train()
    trained = [part for name, part in student.named_children() if name != "tail"]
    parameters = [parameter for part in trained for parameter in part.parameters()]
    optimizer = torch.optim.Adam(parameters, **stage["optimizer"]["kwargs"])
    lmbda = stage["criterion"]["kwargs"]["sub_terms"]["rate"]["weight"]
    clip = stage["optimizer"].get("max_grad_norm")
    head, encoder, decoder = teacher.head, student.encoder, student.decoder
    if compiled:
        head, encoder, decoder = map(torch.compile, (head, encoder, decoder))

    def step(batch: list) -> None:
        x = to_device(batch[0], device)
        context = torch.autocast(device.type, getattr(torch, autocast)) if autocast else nullcontext()
        with context:
            with torch.no_grad():
                h = head(x)
            y_hat, likelihoods = student.entropy_model.estimate(encoder(x))
            bits = -sum(torch.log2(likelihood).sum() for likelihood in likelihoods.values())
            loss = F.mse_loss(decoder(y_hat), h, reduction="sum") + lmbda * bits
        loss.item()  # as training does, to check that it is finite
        student.aux_loss().backward()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def images_per_second(loader: torch.utils.data.DataLoader) -> float:
    """Return how fast a loader reads an epoch, without any training."""
    images, start = 0, None
    for x, *_ in loader:
        start = start or time.perf_counter()  # the first batch includes the start of the workers
        images += len(x)
    return (images - len(x)) / (time.perf_counter() - start)


# ---------------------------------------------------------------------------------------------------------------------
# Coding
# ---------------------------------------------------------------------------------------------------------------------


def coding_steps(run: Path) -> dict[str, Step]:
    """Return encoding and decoding of single images, by a run's student and by codecs."""
    student, config = load_student(run, torch.device("cpu"))
    images = config["datasets"][config["test"]["test_data_loader"]["dataset_id"]]
    pictures = [images.loader(path) for path, _ in images.samples[:: len(images) // 20]]
    x = torch.stack([images.transform(picture) for picture in pictures])
    steps = {
        "encode": on_one_core(cycle(x.split(1)), student.encode),
        "decode": on_one_core(cycle([student.encode(image) for image in x.split(1)]), student.decode),
    }
    for setting in available_settings(list(CODECS)):
        if CODECS[setting.codec] == setting.quality:
            contents = [setting.encode(picture).content for picture in pictures]
            steps[f"{setting.codec} encode"] = on_one_core(cycle(pictures), setting.encode)
            steps[f"{setting.codec} decode, no classifier"] = on_one_core(cycle(contents), setting.decode)
    return steps


if __name__ == "__main__":
    main()
