"""Tells over what the teacher's sensitivity varies, and so which weights of the distortion can save anything.

    python scripts/sensitivity_spread.py --config config/tiny_imagenet/phd_resnet.yaml --target_layer layer2

The sensitivity of an element of h is a sketch of its entry in the diagonal of J^T J, J = d logits / d h
(`saliency_maps/cam_prep/sensitivity.py`). It is averaged over everything but what a row names; values are relative to
their mean. Bits are 0.5 log2 of the arithmetic over the geometric mean of the weights w: at a high rate, what an ideal
code with an error in proportion to 1 / w saves per element beside one with the same error everywhere.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.config import load_config
from misc.device import default_device, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.evaluation import test_loader
from misc.progress import progress_bar
from misc.report import text_table
from saliency_maps.cam_prep.sensitivity import squared_jacobians
from saliency_maps.cam_prep.target_layers import select_target_layers
from saliency_maps.cam_prep.teacher import teacher_from_config


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="names the teacher and the test images")
    parser.add_argument("--target_layer", required=True, metavar="PATH", help="module at the cut, as layer2")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    teacher = teacher_from_config(args.config).model.to(device)
    layers = select_target_layers(teacher, target_layer=args.target_layer)
    loader = test_loader(load_config(args.config, mode="test").data)
    elements, tokens = 0, []
    with progress_bar(None, "sensitivity", len(loader.dataset)) as bar:
        for x, *_ in loader:
            sensitivity = squared_jacobians(teacher, layers, x.to(device))[0].cpu()
            elements += sensitivity.double().sum(0) / len(loader.dataset)
            tokens.append(sensitivity.mean(1))
            bar.update(len(x))
    print(text_table(spread_table(elements, torch.cat(tokens))))


def spread_table(elements: Tensor, tokens: Tensor) -> list[list[str]]:
    """Returns header and rows: how far weights spread over each part.

    Args:
        elements: sensitivity, mean over the images, (C, H, W).
        tokens: sensitivity of each image, mean over the channels, (N, H, W).

    Raises:
        UserError: the sensitivity is zero throughout, as behind a layer that does not reach the logits.
    """
    if not elements.any():
        raise UserError("the logits do not change with this layer: choose one before the classifier")
    weights = {
        "channels": elements.mean((1, 2)),
        "positions": elements.mean(0),
        "channels and positions": elements,
        "images": tokens.mean((1, 2)),
        "images and positions": tokens,
    }
    rows = [[name, f"{weight.numel():,}", *spread(weight.flatten().double())] for name, weight in weights.items()]
    return [["varying over", "weights", "least", "median", "greatest", "bits/element"], *rows]


def spread(weights: Tensor) -> list[str]:
    """Returns least, median and greatest weight relative to the mean, and the bits; none where a weight is zero."""
    relative = weights / weights.mean()
    bits = f"{-0.5 * relative.log2().mean():z.3f}" if relative.min() > 0 else ""
    return [*(f"{value:.2f}" for value in (relative.min(), relative.median(), relative.max())), bits]


if __name__ == "__main__":
    main()
