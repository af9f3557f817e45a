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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from misc.cores import share_cores
from misc.device import default_device, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.image_folder import ImageFolder
from saliency_maps.cam_prep.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.map_run import make_maps, open_map_folder, write_manifest
from saliency_maps.cam_prep.ranks import joined_ranks, local_rank
from saliency_maps.cam_prep.saliency import SaliencyMapper
from saliency_maps.cam_prep.target_layers import TargetLayer, select_target_layers
from saliency_maps.cam_prep.teacher import (
    InputFormat,
    Teacher,
    file_sha256,
    input_format,
    teacher_by_name,
    teacher_from_config,
)
from saliency_maps.map_folder import MapFolder, dataset_identity, map_names, relative_image_names


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    device = usable_device(args.device, local_rank())
    share_cores()
    map_dim = requested_map_dim(args)
    images, image_names = open_images(args)
    teacher = load_teacher(args)
    check_classes(teacher, images)
    layers = select_target_layers(teacher.model, args.mix_layers, args.include_first, args.target_layer)
    image_format = input_format(teacher.model, args.input_size)
    images.transform = image_format.preprocessing()
    map_size = (map_dim, map_dim) if map_dim else image_format.size
    settings = {
        **settings_of(args, teacher, layers, image_format, map_size),
        "dataset_sha256": dataset_identity(images.root, image_names),
    }
    names = map_names(image_names)[: args.limit]

    with joined_ranks() as ranks:
        if ranks.first:
            open_map_folder(args.output, settings)
        ranks.wait()
        existing = MapFolder(args.output).names
        missing = [index for index, name in enumerate(names) if name not in existing]
        ranks.wait()
        start = time.perf_counter()
        mapper = SaliencyMapper(teacher.model.to(device), layers, args.saliency_type, map_size, args.eigen_smooth)
        indices = ranks.share(missing)
        make_maps(mapper, images, names, indices, args.output, device, args.batch_size, args.num_workers)
        ranks.wait()
        seconds = time.perf_counter() - start
        if ranks.first:
            num_uniform = write_manifest(args.output, settings, provenance_of(args, teacher, argv), names)
            report(len(missing), len(names), num_uniform, seconds, args.output)


def report(num_made: int, num_maps: int, num_uniform: int, seconds: float, output: Path) -> None:
    """Prints what a run did."""
    if num_uniform:
        print(f"{num_uniform} maps were empty or not finite and are uniform now; the manifest names them")
    rate = num_made / seconds
    print(
        f"{num_made} maps in {seconds:.1f} s, {rate:.1f} images/s, {num_maps - num_made} were there already: {output}"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; what needs more than one flag or a look at the machine is checked elsewhere."""
    parser = argparse.ArgumentParser(
        description="Makes one saliency map per image. Given again, the command goes on where it was stopped."
    )
    teacher = parser.add_argument_group("teacher").add_mutually_exclusive_group(required=True)
    teacher.add_argument("--model", help="timm name of the teacher, with timm's weights unless --weights_path is given")
    teacher.add_argument("--config", type=Path, help="take the teacher of this training config")
    add = parser.add_argument
    add("--weights_path", help="the teacher's weights: safetensors or a state dict")
    add("--num_classes", type=positive, help="the teacher's number of classes, with --model (default: 1000)")
    add("--input_size", type=positive, help="images are resized to this square (default: the teacher's own size)")
    add("--input", type=Path, required=True, help="images, one folder per class, in the order of the teacher's classes")
    add("--output", type=Path, required=True, help="folder of the maps, OUTPUT/CLASS/IMAGE.npy and manifest.json")
    add("--limit", type=positive, help="make the maps of the first LIMIT images only")
    add("--saliency_type", default="XGradCAM", choices=CAM_METHODS, help="method (default: %(default)s)")
    add("--mix_layers", action="store_true", help="mean of the maps of three depths (default: the last stage alone)")
    add("--include_first", action="store_true", help="with --mix_layers: add the first stage")
    add("--target_layer", help="module path of the one layer to look at, in place of the last stage")
    add("--eigen_smooth", action="store_true", help="first principal component over the channels in place of their sum")
    add("--patch_cam", action="store_true", help="maps of TARGET_DIM x TARGET_DIM (default: the teacher's input size)")
    add("--target_dim", type=positive, help="side of the maps, with --patch_cam (default: 28)")
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


def requested_map_dim(args: argparse.Namespace) -> int | None:
    """Returns the side of the maps, None for the size of the teacher's input."""
    if args.target_dim and not args.patch_cam:
        raise UserError("--target_dim sets the side of the maps of --patch_cam: give both")
    return (args.target_dim or 28) if args.patch_cam else None


def open_images(args: argparse.Namespace) -> tuple[ImageFolder, list[str]]:
    """Opens the data set; returns it and its images' names below it."""
    if args.output.resolve().is_relative_to(args.input.resolve()):
        raise UserError(f"--output {args.output} lies in --input, where it would be taken for a class: move it out")
    images = ImageFolder(args.input)
    return images, relative_image_names(images.root, (path for path, _ in images.samples))


def load_teacher(args: argparse.Namespace) -> Teacher:
    """Builds the teacher that the command line names."""
    if args.model:
        return teacher_by_name(args.model, args.weights_path, args.num_classes)
    if args.num_classes:
        raise UserError("--num_classes goes with --model; with --config the config says it")
    return teacher_from_config(args.config, args.weights_path)


def check_classes(teacher: Teacher, images: ImageFolder) -> None:
    """Makes sure that a class folder's index can be the teacher's class: a subset would explain the wrong classes."""
    num_folders, num_classes = len(images.classes), teacher.model.num_classes
    if num_folders != num_classes:
        raise UserError(
            f"{images.root} has {num_folders} class folders and {teacher.name} knows {num_classes} classes: "
            "give a data set and a teacher with the same classes"
        )


def settings_of(
    args: argparse.Namespace,
    teacher: Teacher,
    layers: Sequence[TargetLayer],
    image_format: InputFormat,
    map_size: tuple[int, int],
) -> dict[str, Any]:
    """Returns everything but the images that a map depends on."""
    # Seconds to import: a mistake in the arguments should not wait for it.
    from misc.weights import digest

    settings = {
        "model": teacher.name,
        "model_kwargs": teacher.kwargs,
        "model_sha256": digest(teacher.model),
        "saliency_type": args.saliency_type,
        "layers": [layer.name for layer in layers],
        "eigen_smooth": args.eigen_smooth,
        "map_size": list(map_size),
        "input_size": list(image_format.size),
        "mean": list(image_format.mean),
        "std": list(image_format.std),
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
