"""Show over which axes the teacher's sensitivity varies, and hence which weights of the distortion can save bits.

    python scripts/sensitivity_spread.py --config config/tiny_imagenet/phd_resnet.yaml --target_layer layer2

The sensitivity of an element of h is an estimate of its entry in the diagonal of J^T J, J = d logits / d h
(`saliency_maps/cam_prep/methods/sensitivity.py`). Each row averages it over all axes but the ones it names; values are
relative to their mean. Bits are 0.5 log2 of the ratio of the weights' arithmetic to their geometric mean: what, at a
high rate, an ideal code with an error in proportion to 1 / w saves per element over one with a uniform error.
"""

import argparse

import torch

from misc.config.load import load_config
from misc.devices import default_device, usable_device
from misc.errors import exit_on_user_error
from misc.evaluation.evaluate import evaluation_loader
from misc.progress import progress_bar
from misc.tables import text_table
from saliency_maps.analysis.statistics import spread_table
from saliency_maps.cam_prep.methods.sensitivity import squared_jacobians
from saliency_maps.cam_prep.methods.target_layers import select_target_layers
from saliency_maps.cam_prep.teacher import teacher_from_config


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="config with the teacher and the test set")
    parser.add_argument("--target_layer", required=True, metavar="PATH", help="module at the cut, such as layer2")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    teacher = teacher_from_config(args.config).model.to(device)
    layers = select_target_layers(teacher, target_layer=args.target_layer)
    loader = evaluation_loader(load_config(args.config, mode="test").data)
    elements, tokens = 0, []
    with progress_bar(None, "sensitivity", len(loader.dataset)) as bar:
        for x, *_ in loader:
            sensitivity = squared_jacobians(teacher, layers, x.to(device))[0].cpu()
            elements += sensitivity.double().sum(0) / len(loader.dataset)
            tokens.append(sensitivity.mean(1))
            bar.update(len(x))
    print(text_table(spread_table(elements, torch.cat(tokens))))


if __name__ == "__main__":
    main()
