"""Write a student's weights in half the size: parameters in float16.

If encoder or entropy model are among the parts, the coder's tables are made anew and the fingerprint changes: device
and server must then both use the new file. Test it before you ship it: `--test_only` with
`--set models.student_model.src_ckpt=FILE`.
"""

import argparse
from pathlib import Path

import torch

from misc.config.entries import build_model, trained_model, trained_name, without_trained_parts
from misc.config.load import load_config
from misc.errors import UserError, exit_on_user_error
from model.split import PARTS, SplitClassifier, load_into
from model.weights import read_facts, save_weights


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="of the student")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value of the config")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all three")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="of the student, safetensors")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="ends in .safetensors")
    return parser


@exit_on_user_error
@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    if {args.weights.suffix, args.output.suffix} != {".safetensors"}:
        raise UserError("both files must end in .safetensors")
    entries = load_config(args.config, args.set, mode="test").data["models"]
    student = build_model(trained_name(entries), without_trained_parts(trained_model(entries)), torch.device("cpu"))
    if not isinstance(student, SplitClassifier):
        raise UserError(f"{args.config} has no student")
    load_into(student, args.weights)
    facts = read_facts(args.weights)
    tail = facts.pop("tail_sha256", None)
    for part in args.parts:
        round_to_half(getattr(student, part))
    if "entropy_model" in args.parts:
        student.update(force=True, update_quantiles=True)
        round_to_half(student.entropy_model)  # the quantiles, which update() has solved
        student.update(force=True)
    save_weights(student, args.output, tail, args.parts, **facts)
    before, after = (path.stat().st_size for path in (args.weights, args.output))
    print(f"{args.output}: {after:,} bytes instead of {before:,}, fingerprint {student.fingerprint().hex()}")


def round_to_half(module: torch.nn.Module) -> None:
    """Round a module's parameters to values of float16, in place."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half())


if __name__ == "__main__":
    main()
