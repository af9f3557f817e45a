r"""Make one saliency map per image of a data set: where the teacher looks to find the image's class.

    python saliency_maps/cam_prep/cam_map_generation.py --model swin_s3_base_224 --input ilsvrc2012/train \
        --output ilsvrc2012/maps --batch_size 64 --device cuda --mix_layers --eigen_smooth --patch_cam --target_dim 28

Repeat the command to resume; damaged maps are regenerated. With `torchrun --nproc_per_node N` in place of `python`, N
processes share the images, and with `--device cuda` N GPUs do.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from misc.devices import default_device, share_cores, usable_device
from misc.distributed.ranks import Ranks, joined_ranks, local_rank
from misc.errors import UserError, exit_on_user_error, natural, positive
from saliency_maps.cam_prep.map_output import FORMATS, map_outputs, opened
from saliency_maps.cam_prep.map_run import batches_to_do, image_names, make_maps, open_images, report
from saliency_maps.cam_prep.map_settings import map_settings, provenance
from saliency_maps.cam_prep.methods.activations import AUTOCAST
from saliency_maps.cam_prep.methods.library import FULL_GRAD, SaliencyTypes
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import TargetLayer, select_target_layers
from saliency_maps.cam_prep.teacher import InputFormat, Teacher, input_format, teacher_by_name, teacher_from_config
from saliency_maps.map_folder import DTYPES, dataset_identity, map_names

# Ranks meet at the end of the whole data set, and their devices may differ in speed.
RANK_TIMEOUT = timedelta(days=2)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_flags(args)
    with joined_ranks(RANK_TIMEOUT) as ranks:
        run(args, ranks, sys.argv[1:] if argv is None else argv)


def run(args: argparse.Namespace, ranks: Ranks, arguments: Sequence[str]) -> None:
    """Make this rank's share of the maps; the first rank opens and finishes the output and reports."""
    device = usable_device(args.device, local_rank())
    share_cores()
    by_label = args.target == "label"
    images = open_images(args.input, args.output, by_label)
    teacher = load_teacher(args)
    indices = images.set_labels(teacher.model.num_classes, args.class_map) if by_label else None
    image_format = input_format(teacher.model, args.input_size)
    layers = target_layers(args, teacher, image_format)
    images.transform = image_format.preprocessing()
    names = image_names(images)
    settings = map_settings(args, teacher, layers, image_format, indices, dataset_identity(images.root, names))
    outputs = map_outputs(args.output, settings, map_names(names), args.limit)
    with opened(args.output, outputs, ranks) as num_damaged:
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
        make_maps(mapper, images, ranks.share(batches), outputs, not by_label, device, args.num_workers)
        ranks.wait()
        seconds = time.perf_counter() - start
        if ranks.first:
            origin = provenance(args, teacher, arguments)
            num_uniform = sum(output.finish(origin) for output in outputs)
            num_images = sum(map(len, batches))
            print(report(args.output, outputs, num_images, num_damaged, num_uniform, seconds, mapper.clock.seconds))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; `check_flags` checks how flags go together."""
    parser = argparse.ArgumentParser(
        description="Make one saliency map per image. Repeat the command to resume; damaged maps are regenerated."
    )
    teacher = parser.add_argument_group("teacher").add_mutually_exclusive_group(required=True)
    teacher.add_argument("--model", help="timm name of the teacher, with timm's weights unless --weights_path is given")
    teacher.add_argument("--config", type=Path, help="take the teacher of this training config")
    weights = parser.add_mutually_exclusive_group()
    kinds = "a checkpoint of timm's or Lightning's, a state dict, safetensors"
    weights.add_argument("--weights_path", help=f"the teacher's weights: {kinds}")
    weights.add_argument("--random_weights", action="store_true", help="an untrained teacher, to try the command out")
    add = parser.add_argument
    add(
        "--num_classes",
        type=positive,
        help="the teacher's number of classes, with --model (default: that of its weights)",
    )
    add("--input_size", type=positive, help="images are resized to this square (default: the teacher's own size)")
    add("--input", type=Path, required=True, help="images, one folder per class, in the order of the teacher's classes")
    add("--output", type=Path, required=True, help="folder of the maps, OUTPUT/CLASS/IMAGE.npy and manifest.json")
    add("--limit", type=positive, help="make the maps of the first LIMIT images only")
    add(
        "--target",
        default="label",
        choices=("label", "predicted"),
        help="explain the class of the image's folder, or the one that the teacher predicts, of images in any folders "
        "(default: %(default)s)",
    )
    add("--class_map", type=Path, help="JSON or YAML file with the teacher's class index of each class folder")
    add(
        "--saliency_type",
        default="XGradCAM",
        choices=SaliencyTypes(),
        metavar="METHOD",
        help="%(choices)s (default: %(default)s)",
    )
    add("--mix_layers", action="store_true", help="mean of the maps of three depths (default: the last stage alone)")
    add("--include_first", action="store_true", help="with --mix_layers: add the first stage")
    add(
        "--multires",
        action="store_true",
        help="with --mix_layers: one folder per layer, OUTPUT/LAYER, in place of the mean",
    )
    add("--target_layer", help="module path of the one target layer, in place of the last stage")
    add("--eigen_smooth", action="store_true", help="first principal component over the channels in place of their sum")
    add("--guided_backprop", action="store_true", help="multiply the maps with those of guided backpropagation")
    add("--patch_cam", action="store_true", help="maps of TARGET_DIM x TARGET_DIM (default: the teacher's input size)")
    add("--target_dim", type=positive, help="side of the maps, with --patch_cam (default: 28)")
    add("--format", default="npy", choices=FORMATS, help="one file per image, or per class (default: %(default)s)")
    add("--dtype", default="float32", choices=DTYPES, help="of the stored values (default: %(default)s)")
    add("--autocast", choices=AUTOCAST, help="compute in lower precision (default: float32)")
    add("--batch_size", type=positive, default=16, help="images per step (default: %(default)s)")
    add("--num_workers", type=natural, default=2, help="processes that read images (default: %(default)s)")
    add("--device", default=default_device(), help="cpu, cuda or cuda:N (default here: %(default)s)")
    return parser.parse_args(argv)


def check_flags(args: argparse.Namespace) -> None:
    """Reject flags that need another one, or exclude each other.

    Raises:
        UserError: the first such combination.
    """
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


def load_teacher(args: argparse.Namespace) -> Teacher:
    """Build the teacher that the command line names."""
    if args.random_weights:
        print("warning: the teacher has random weights; maps of an untrained network mean nothing", file=sys.stderr)
    if args.model:
        return teacher_by_name(args.model, args.weights_path, args.num_classes, args.random_weights)
    return teacher_from_config(args.config, args.weights_path, args.random_weights)


def target_layers(args: argparse.Namespace, teacher: Teacher, image_format: InputFormat) -> list[TargetLayer]:
    """Return the target layers; FullGrad has none."""
    if args.saliency_type == FULL_GRAD:
        return []
    return select_target_layers(
        teacher.model, args.mix_layers, args.include_first, args.target_layer, image_format.size
    )


if __name__ == "__main__":
    main()
