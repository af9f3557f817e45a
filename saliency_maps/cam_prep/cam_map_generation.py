"""Makes one saliency map per image of a data set: where the teacher looks to find the image's class.

    python saliency_maps/cam_prep/cam_map_generation.py --model swin_s3_base_224 --input ilsvrc2012/train \
        --output ilsvrc2012/maps --batch_size 64 --device cuda --mix_layers --eigen_smooth --patch_cam --target_dim 28

Given again, the command goes on where it was stopped. In front of it, `torchrun --nproc_per_node N` in place of
`python` shares the images among N processes, and with `--device cuda` among N GPUs.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from misc.datasets.image_folder import ImageFolder
from misc.devices import default_device, share_cores, usable_device
from misc.distributed.ranks import Ranks, joined_ranks, local_rank
from misc.errors import UserError, exit_on_user_error
from misc.files import locked
from saliency_maps.cam_prep.class_indices import class_indices, digest
from saliency_maps.cam_prep.map_output import FORMATS, LOCK, MapOutput, check_disk
from saliency_maps.cam_prep.map_run import batches_to_do, make_maps, shares
from saliency_maps.cam_prep.methods.cam_methods import FULL_GRAD, SALIENCY_TYPES
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import TargetLayer, select_target_layers
from saliency_maps.cam_prep.teacher import (
    InputFormat,
    Teacher,
    file_sha256,
    input_format,
    teacher_by_name,
    teacher_from_config,
)
from saliency_maps.map_folder import DTYPES, SETTINGS, dataset_identity, map_names, relative_image_names

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Ranks meet at the end of the whole data set, and their devices may differ in speed.
PATIENCE = timedelta(days=2)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_flags(args)
    with joined_ranks(PATIENCE) as ranks:
        make(args, ranks, argv)


def make(args: argparse.Namespace, ranks: Ranks, argv: Sequence[str] | None) -> None:
    """Makes this rank's share of the maps; the first rank opens and closes the output and reports."""
    device = usable_device(args.device, local_rank())
    share_cores()
    images, image_names = open_images(args)
    teacher = load_teacher(args)
    indices = label_classes(args, teacher, images)
    image_format = input_format(teacher.model, args.input_size)
    layers = target_layers(args, teacher, image_format)
    images.transform = image_format.preprocessing()
    settings = {
        **settings_of(args, teacher, layers, image_format, indices),
        "dataset_sha256": dataset_identity(images.root, image_names),
    }
    outputs = map_outputs(args, settings, map_names(image_names))

    busy = f"another run is making the maps in {args.output}: wait for it or choose another --output"
    with locked(args.output / LOCK, busy) if ranks.first else nullcontext():
        num_damaged = 0
        if ranks.first:
            num_damaged = sum(output.open() for output in outputs)
        ranks.wait()
        for output in outputs:
            output.find_missing()
        if ranks.first:
            check_disk(outputs, settings)
        ranks.wait()
        start = time.perf_counter()
        mapper = SaliencyMapper(
            teacher.model.to(device),
            layers,
            args.saliency_type,
            tuple(settings["map_size"]),
            args.eigen_smooth,
            per_layer=args.multires,
            guided=args.guided_backprop,
            autocast=AUTOCAST.get(args.autocast),
        )
        batches = batches_to_do(outputs, args.batch_size)
        predicted = args.target == "predicted"
        make_maps(mapper, images, ranks.share(batches), outputs, predicted, device, args.num_workers)
        ranks.wait()
        seconds = time.perf_counter() - start
        if ranks.first:
            provenance = provenance_of(args, teacher, argv)
            num_uniform = sum(output.finish(provenance) for output in outputs)
            report(args.output, outputs, sum(map(len, batches)), num_damaged, num_uniform, seconds, mapper.seconds)


def report(
    folder: Path,
    outputs: Sequence[MapOutput],
    num_images: int,
    num_damaged: int,
    num_uniform: int,
    seconds: float,
    parts: Mapping[str, float],
) -> None:
    """Prints what a run did.

    Args:
        folder: where the maps are.
        outputs: the folders of maps in it.
        num_images: images that went through the teacher.
        num_damaged: maps that had been there and were made again.
        num_uniform: maps without a preference, of earlier runs too.
        seconds: how long it took.
        parts: how long each part of the work took; {} where there was none.
    """
    if num_uniform:
        print(f"{num_uniform} maps are uniform, as they were empty or not finite; the manifest names them")
    if not num_images:
        print(f"nothing to do, {sum(len(output.names) for output in outputs)} maps were there already: {folder}")
        return
    if parts:
        print(f"time: {shares(parts)}")
    num_made = sum(len(output.missing) for output in outputs)
    num_there = sum(len(output.names) for output in outputs) - num_made
    damaged = f", {num_damaged} damaged ones made again" if num_damaged else ""
    rate = num_images / seconds
    print(f"{num_made} maps in {seconds:.1f} s, {rate:.1f} images/s, {num_there} were there already{damaged}: {folder}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; what needs more than one flag or a look at the machine is checked elsewhere."""
    parser = argparse.ArgumentParser(
        description="Makes one saliency map per image. Given again, the command goes on where it was stopped."
    )
    teacher = parser.add_argument_group("teacher").add_mutually_exclusive_group(required=True)
    teacher.add_argument("--model", help="timm name of the teacher, with timm's weights unless --weights_path is given")
    teacher.add_argument("--config", type=Path, help="take the teacher of this training config")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights_path", help="the teacher's weights: safetensors or a state dict")
    weights.add_argument("--random_weights", action="store_true", help="an untrained teacher, to try the command out")
    add = parser.add_argument
    add("--num_classes", type=positive, help="the teacher's number of classes, with --model (default: 1000)")
    add("--input_size", type=positive, help="images are resized to this square (default: the teacher's own size)")
    add("--input", type=Path, required=True, help="images, one folder per class, in the order of the teacher's classes")
    add("--output", type=Path, required=True, help="folder of the maps, OUTPUT/CLASS/IMAGE.npy and manifest.json")
    add("--limit", type=positive, help="make the maps of the first LIMIT images only")
    add(
        "--target",
        default="label",
        choices=("label", "predicted"),
        help="explain the class of the image's folder, or the one that the teacher predicts (default: %(default)s)",
    )
    add("--class_map", type=Path, help="JSON or YAML file with the teacher's class index of each class folder")
    add("--saliency_type", default="XGradCAM", choices=SALIENCY_TYPES, help="method (default: %(default)s)")
    add("--mix_layers", action="store_true", help="mean of the maps of three depths (default: the last stage alone)")
    add("--include_first", action="store_true", help="with --mix_layers: add the first stage")
    add(
        "--multires",
        action="store_true",
        help="with --mix_layers: not their mean, but a folder for each, OUTPUT/LAYER",
    )
    add("--target_layer", help="module path of the one layer to look at, in place of the last stage")
    add("--eigen_smooth", action="store_true", help="first principal component over the channels in place of their sum")
    add("--guided_backprop", action="store_true", help="multiply the maps with guided backpropagation's")
    add("--patch_cam", action="store_true", help="maps of TARGET_DIM x TARGET_DIM (default: the teacher's input size)")
    add("--target_dim", type=positive, help="side of the maps, with --patch_cam (default: 28)")
    add("--format", default="npy", choices=FORMATS, help="one file per image, or per class (default: %(default)s)")
    add("--dtype", default="float32", choices=DTYPES, help="of the stored values (default: %(default)s)")
    add("--autocast", choices=AUTOCAST, help="compute in lower precision (default: float32)")
    add("--batch_size", type=positive, default=16, help="images per step (default: %(default)s)")
    add("--num_workers", type=natural, default=2, help="processes that read images (default: %(default)s)")
    add("--device", default=default_device(), help="cpu, cuda or cuda:N (default here: %(default)s)")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """Reads an integer of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """Reads an integer of at least 0."""
    return _at_least(0, text)


def _at_least(minimum: int, text: str) -> int:
    if int(text) < minimum:
        raise argparse.ArgumentTypeError(f"{text} is less than {minimum}")
    return int(text)


def check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that say nothing without another one, or nothing together."""
    if args.target_dim and not args.patch_cam:
        raise UserError("--target_dim sets the side of the maps of --patch_cam: give both")
    if args.multires and not args.mix_layers:
        raise UserError("--multires keeps the layers of --mix_layers apart: give both")
    if args.class_map and args.target == "predicted":
        raise UserError("--class_map says what --target label explains: give either it or --target predicted")
    if args.num_classes and args.config:
        raise UserError("--num_classes goes with --model; with --config the config says it")
    if args.saliency_type == FULL_GRAD and (args.mix_layers or args.include_first or args.target_layer):
        raise UserError(
            f"{FULL_GRAD} sums over all layers: give none of --mix_layers, --include_first and --target_layer"
        )


def open_images(args: argparse.Namespace) -> tuple[ImageFolder, list[str]]:
    """Opens the data set; returns it and its images' names below it."""
    if args.output.resolve().is_relative_to(args.input.resolve()):
        raise UserError(f"--output {args.output} lies in --input, where it would be taken for a class: move it out")
    images = ImageFolder(args.input)
    return images, relative_image_names(images.root, (path for path, _ in images.samples))


def load_teacher(args: argparse.Namespace) -> Teacher:
    """Builds the teacher that the command line names."""
    if args.random_weights:
        print("warning: the teacher has random weights; maps of an untrained network mean nothing", file=sys.stderr)
    if args.model:
        return teacher_by_name(args.model, args.weights_path, args.num_classes, args.random_weights)
    return teacher_from_config(args.config, args.weights_path, args.random_weights)


def label_classes(args: argparse.Namespace, teacher: Teacher, images: ImageFolder) -> dict[str, int] | None:
    """Makes the teacher's class the label of each image; returns it by folder, None where labels play no part."""
    if args.target == "predicted":
        return None
    indices = class_indices(images.classes, teacher.model.num_classes, args.class_map)
    images.target_transform = [indices[folder] for folder in images.classes].__getitem__
    return indices


def target_layers(args: argparse.Namespace, teacher: Teacher, image_format: InputFormat) -> list[TargetLayer]:
    """Returns the layers that the maps look at; FullGrad has none."""
    if args.saliency_type == FULL_GRAD:
        return []
    return select_target_layers(
        teacher.model, args.mix_layers, args.include_first, args.target_layer, image_format.size
    )


def map_outputs(args: argparse.Namespace, settings: dict[str, Any], names: Sequence[str]) -> list[MapOutput]:
    """Returns the folder of maps, or with --multires one for each layer, complete in itself."""
    if not args.multires:
        return [MapOutput(args.output, settings, names, args.limit)]
    if (args.output / SETTINGS).exists():
        raise UserError(f"{args.output} holds maps, and with --multires it would hold folders: choose another --output")
    return [
        MapOutput(args.output / layer, {**settings, "layers": [layer]}, names, args.limit)
        for layer in settings["layers"]
    ]


def settings_of(
    args: argparse.Namespace,
    teacher: Teacher,
    layers: Sequence[TargetLayer],
    image_format: InputFormat,
    indices: dict[str, int] | None,
) -> dict[str, Any]:
    """Returns everything but the images that a map depends on, and how it is stored."""
    # Seconds to import: a mistake in the arguments should not wait for it.
    from model.weights import digest as model_digest

    side = args.target_dim or 28
    settings = {
        "model": teacher.name,
        "model_kwargs": teacher.kwargs,
        "model_sha256": model_digest(teacher.model),
        "target": args.target,
        "class_indices_sha256": digest(indices) if indices else None,
        "saliency_type": args.saliency_type,
        "layers": [layer.name for layer in layers],
        "multires": args.multires,
        "eigen_smooth": args.eigen_smooth,
        "guided_backprop": args.guided_backprop,
        "autocast": args.autocast,
        "map_size": [side, side] if args.patch_cam else list(image_format.size),
        "input_size": list(image_format.size),
        "mean": list(image_format.mean),
        "std": list(image_format.std),
        "format": args.format,
        "dtype": args.dtype,
    }
    # Compared with what an earlier run wrote, hence in JSON's own types.
    return json.loads(json.dumps(settings, default=str))


def provenance_of(args: argparse.Namespace, teacher: Teacher, argv: Sequence[str] | None) -> dict[str, Any]:
    """Returns what a reader of the manifest needs to make the maps again."""
    path = teacher.weights_path
    arguments = sys.argv[1:] if argv is None else argv
    return {
        "weights_path": path,
        "weights_sha256": file_sha256(path) if path else None,
        "flags": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "command": shlex.join(["python", "saliency_maps/cam_prep/cam_map_generation.py", *arguments]),
    }


if __name__ == "__main__":
    main()
