"""Measure the saliency stage beside the teacher's bare passes and beside pytorch-grad-cam, and ways to project.

The sides of a comparison alternate in one process, on one thread unless --threads says otherwise; a table gives the
median over the rounds of each side's time, and of the ratio of the stage's time to it in the same round. Maps are
XGradCAM's with --eigen_smooth and --mix_layers, 28 x 28. The stage reads 640 x 427 JPEGs, computes the maps and writes
them; the other sides get images that are read and normalised already.
"""

import argparse
import contextlib
import copy
import io
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from misc.datasets.image_folder import ImageFolder
from misc.devices import default_device, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation.timing import alternate
from misc.tables import text_table
from saliency_maps.cam_prep.map_output import MapOutput
from saliency_maps.cam_prep.map_run import make_maps, shares
from saliency_maps.cam_prep.methods import projection
from saliency_maps.cam_prep.methods.activations import (
    AUTOCAST,
    activations_and_gradients,
    autocast_context,
    target_logits,
)
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import TargetLayer, select_target_layers
from saliency_maps.cam_prep.teacher import input_format, teacher_by_name
from saliency_maps.map_folder import map_names, relative_image_names

IMAGENET_TRAIN = 1_281_167
STAGE, BARE, UPSTREAM = "the whole stage", "forward and backward alone, graph cut", "pytorch-grad-cam"
CUPY = "eigenvectors of the Gram matrices, float64, CuPy"


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="swin_tiny_patch4_window7_224", help="timm name (default: %(default)s)")
    add("--batch_size", type=int, default=8, help="images per step (default: %(default)s)")
    add("--batches", type=int, default=2, help="of the stage in a round (default: %(default)s)")
    add("--rounds", type=int, default=5, help="after one that warms up (default: %(default)s)")
    add("--threads", type=int, default=1, help="of torch on the CPU (default: %(default)s)")
    add("--num_workers", type=int, default=0, help="processes that read images (default: %(default)s)")
    add("--autocast", choices=AUTOCAST, help="lower precision of the stage and of the bare passes")
    add("--device", default=default_device(), help="cpu, cuda or cuda:N (default here: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    torch.set_num_threads(args.threads)
    device = usable_device(args.device)
    model = teacher_by_name(args.model, random_weights=True).model.to(device)
    mapper = SaliencyMapper(
        model,
        select_target_layers(model, mix_layers=True),
        "XGradCAM",
        map_size=(28, 28),
        eigen_smooth=True,
        autocast=AUTOCAST.get(args.autocast),
    )
    with tempfile.TemporaryDirectory() as folder:
        images = photographs(Path(folder) / "images", args.batches * args.batch_size)
        images.transform = input_format(model).preprocessing()
        pixels = torch.stack([images[index][0] for index in range(args.batch_size)]).to(device)
        print(f"{args.model}, random weights, batch {args.batch_size}, {processor(device)}, torch {torch.__version__}")
        seconds = measure_stage(mapper, images, pixels, Path(folder), args)
    print(stage_table(seconds))
    print(f"of the stage's time: {shares(mapper.clock.seconds)}")
    hours = statistics.median(seconds[STAGE]) * IMAGENET_TRAIN / 3600
    print(f"ImageNet's {IMAGENET_TRAIN:,} training images at this rate: {hours:.1f} hours\n")
    print(projection_table(mapper, pixels, args.rounds))


def processor(device: torch.device) -> str:
    """Return what the times are taken on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else "CPU with one thread"


def photographs(folder: Path, number: int) -> ImageFolder:
    """Write scikit-learn's two photographs in turn, as JPEGs of one class."""
    (folder / "photograph").mkdir(parents=True)
    pixels = load_sample_images().images
    for index in range(number):
        Image.fromarray(pixels[index % len(pixels)]).save(folder / "photograph" / f"{index:05}.jpg", quality=90)
    return ImageFolder(folder)


def measure_stage(
    mapper: SaliencyMapper, images: ImageFolder, pixels: Tensor, folder: Path, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds per image of the three sides, one for each round."""
    labels = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    outputs = (folder / f"maps-{number}" for number in count())
    batch_size, num_workers = args.batch_size, args.num_workers
    sides = {
        STAGE: lambda: run_stage(mapper, images, next(outputs), batch_size, pixels.device, num_workers),
        BARE: lambda: run_bare_passes(mapper, pixels, labels),
        UPSTREAM: upstream(mapper.model, mapper.layers, pixels),
    }
    milliseconds = alternate(sides, args.rounds, pixels.device, warm_up=1)
    num_images = {STAGE: len(images), BARE: len(pixels), UPSTREAM: len(pixels)}
    return {side: [time / 1000 / num_images[side] for time in times] for side, times in milliseconds.items()}


def run_stage(
    mapper: SaliencyMapper, images: ImageFolder, folder: Path, batch_size: int, device: torch.device, num_workers: int
) -> None:
    """Make the maps of all images as the command line does, with its progress bar swallowed."""
    names = map_names(relative_image_names(images.root, (path for path, _ in images.samples)))
    output = MapOutput(folder, {"format": "npy", "dtype": "float32", "map_size": mapper.map_size}, names)
    output.open()
    output.find_missing()
    batches = [range(start, start + batch_size) for start in range(0, len(names), batch_size)]
    with contextlib.redirect_stderr(io.StringIO()):
        make_maps(mapper, images, batches, [output], False, device, num_workers)


def run_bare_passes(mapper: SaliencyMapper, pixels: Tensor, labels: Tensor) -> None:
    """One forward, and one backward down to the first target layer: what no method with gradients can do without."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        recorded.append(output if output.requires_grad else output.detach().requires_grad_())
        return recorded[-1]

    handles = [layer.module.register_forward_hook(record) for layer in mapper.layers]
    try:
        with autocast_context(pixels, mapper.autocast):
            logits = mapper.model(pixels)
        torch.autograd.grad(target_logits(logits.float(), labels).sum(), recorded)
    finally:
        for handle in handles:
            handle.remove()


def upstream(model: nn.Module, layers: Sequence[TargetLayer], pixels: Tensor) -> Callable[[], object]:
    """Return a run of pytorch-grad-cam over the same layers with the same options.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pytorch_grad_cam import XGradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        raise UserError("pytorch-grad-cam is missing: pip install -r requirements.txt") from None
    # It differentiates down to what requires a gradient, and a model as timm gives it has parameters that do.
    model = copy.deepcopy(model).requires_grad_(True)
    modules = [model.get_submodule(layer.name) for layer in layers]
    targets = [ClassifierOutputTarget(0)] * len(pixels)

    def run() -> None:
        with XGradCAM(model, modules, reshape_transform=layers[0].channels_first) as cam:
            cam(pixels, targets, eigen_smooth=True)

    return run


def stage_table(seconds: Mapping[str, Sequence[float]]) -> str:
    """Return time, rate and the stage's share of the time of each side."""
    table = [["", "ms per image", "images/s", "the stage / this"]]
    for side, times in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(seconds[STAGE], times, strict=True))
        median = statistics.median(times)
        table.append([side, f"{1000 * median:.2f}", f"{1 / median:.1f}", f"{ratio:.3f}"])
    return text_table(table)


def projection_table(mapper: SaliencyMapper, pixels: Tensor, rounds: int) -> str:
    """Return the time of each way to project all layers' features, and its largest error against a float64 SVD."""
    labels = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    features, gradients = activations_and_gradients(mapper.model, mapper.layers, pixels, labels)
    weighted = [mapper.method.weigh(*pair) for pair in zip(features, gradients, strict=True)]
    ways = {
        "SVD per image, float32, NumPy (pytorch-grad-cam)": partial(svd, dtype=np.float32),
        "eigenvectors of the Gram matrices, float64, torch": partial(
            projection.first_principal_component, leading_eigenpair=projection.by_torch
        ),
    }
    if pixels.is_cuda and projection.cupy:
        ways[CUPY] = partial(projection.first_principal_component, leading_eigenpair=projection.by_cupy)
    elif not pixels.is_cuda:
        ways["leading eigenvector of the Gram matrix, float64, SciPy"] = partial(
            projection.first_principal_component, leading_eigenpair=projection.by_scipy
        )
    sides = {name: partial(projected, way, weighted) for name, way in ways.items()}
    milliseconds = alternate(sides, rounds, pixels.device, warm_up=1)
    exact = projected(partial(svd, dtype=np.float64), weighted)
    table = [["projection", "ms per image", "largest error"]]
    for name, run in sides.items():
        error = max(relative_error(*pair) for pair in zip(run(), exact, strict=True))
        table.append([name, f"{statistics.median(milliseconds[name]) / len(pixels):.2f}", f"{error:.1e}"])
    table += [] if CUPY in ways else [[CUPY, "not run", "not run"]]
    shapes = ", ".join("x".join(map(str, layer.shape[1:])) for layer in weighted)
    return f"{text_table(table)}\nof features {shapes}; errors are relative to a map's largest value"


def projected(way: Callable[[Tensor], Tensor], weighted: Sequence[Tensor]) -> list[Tensor]:
    return [way(features) for features in weighted]


def svd(features: Tensor, dtype: type) -> Tensor:
    """Project image by image, as pytorch-grad-cam's `get_2d_projection` does."""
    maps = []
    for image in features.cpu().numpy():
        positions = image.reshape(len(image), -1).T.astype(dtype)
        positions = positions - positions.mean(axis=0)
        _, _, directions = np.linalg.svd(positions, full_matrices=False)
        maps.append((positions @ directions[0]).reshape(image.shape[1:]))
    return torch.from_numpy(np.stack(maps))


def relative_error(maps: Tensor, exact: Tensor) -> float:
    """Return the largest difference up to sign, relative to the largest value of the image's map."""
    maps, exact = maps.cpu().double().flatten(1), exact.flatten(1)
    same = (maps * exact).sum(dim=1, keepdim=True).sign()
    return float(((maps * same - exact).abs().amax(dim=1) / exact.abs().amax(dim=1)).max())


if __name__ == "__main__":
    main()
