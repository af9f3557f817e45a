"""Expand product-quantised weights of a timm model, codes and codebooks, to a weights file.

    python scripts/expand_codes.py resnet18.pth resnet18 -o resources/teachers/resnet18.safetensors

The format is that of Permute, Quantize, and Fine-tune (Martinez et al., CVPR 2021). A quantised layer has
LAYER.codebook, (K, d), and LAYER.codes_matrix, the row of the codebook for every d numbers of the weight; all other
tensors have their own names. Statistics of batch normalisation are folded into its weight and bias.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from misc.errors import UserError, exit_on_user_error, first_few
from model.classifier import create_timm_model
from model.weights import load_weights, read_state_dict, save_weights


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("codes", type=Path, metavar="FILE", help="tensors that torch.save wrote")
    parser.add_argument("name", help="timm's name of the model")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors")
    return parser


def expanded(coded: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model from codes; statistics of batch normalisation stay those of a new model.

    Raises:
        UserError: tensors that are missing, or codes that do not fill a weight.
    """
    state = dict(model.state_dict())
    missing = [name for name, _ in model.named_parameters() if not _is_coded(coded, name) and name not in coded]
    if missing:
        raise UserError(f"{len(missing)} tensors have neither values nor codes with a codebook: {first_few(missing)}")
    for name, like in state.items():
        if _is_coded(coded, name):
            codebook, codes = (coded[f"{name.removesuffix('.weight')}.{part}"] for part in ("codebook", "codes_matrix"))
            rows = codebook.float()[codes.long()]
            if rows.numel() != like.numel():
                raise UserError(f"the codes of {name} stand for {rows.numel():,} values; expected {like.numel():,}")
            state[name] = rows.reshape(like.shape)
        elif name in coded:
            state[name] = coded[name]
    return state


def _is_coded(coded: dict[str, Tensor], name: str) -> bool:
    layer = name.removesuffix(".weight")
    return name != layer and f"{layer}.codes_matrix" in coded and f"{layer}.codebook" in coded


@exit_on_user_error
@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output} must end in .safetensors")
    model = create_timm_model(args.name)
    load_weights(model, args.codes, expanded(read_state_dict(args.codes), model))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model, args.output, codes=args.codes.name)
    print(f"{args.output}: {sum(each.numel() for each in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
