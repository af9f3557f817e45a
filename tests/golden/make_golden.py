"""Generate the golden streams, which pin the current version of the stream format.

    python -m tests.golden.make_golden [PRIOR ...]

Run this only for a new version of the format: if these files no longer decode to the same latents, neither do those of
users.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model import entropy
from model.coding.bitstream import Stream, unpack
from model.halves import EdgeHalf

FOLDER = Path(__file__).resolve().parent
ONE_RATE = ("FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior", "JointAutoregressive", "Checkerboard")
VARIABLE_RATE = ("FactorizedPrior-levels", "Checkerboard-levels")  # streams of format 3, the others are of format 2
PRIORS = (*ONE_RATE, *VARIABLE_RATE)
CHANNELS = 4
LEVELS = [0.4, 0.1, 0.05]
LEVEL = 21  # between two trained levels


def edge_of(prior: str) -> EdgeHalf:
    """Return an untrained edge half whose inputs are latents."""
    name, *levels = prior.split("-")
    extra = {} if name == "FactorizedPrior" else {"hyper_channels": CHANNELS}
    return EdgeHalf(nn.Identity(), getattr(entropy, name)(CHANNELS, **extra, levels=LEVELS if levels else None)).eval()


def encode(edge: EdgeHalf, y: Tensor) -> bytes:
    (stream,) = edge.encode(y, None if edge.entropy_model.gains is None else LEVEL)
    return stream


def y_hat_of(edge: EdgeHalf, stream: Stream) -> Tensor:
    levels = None if stream.level is None else [stream.level]
    return edge.entropy_model.decompress([stream.payload], stream.size, levels)


def digest(y_hat: Tensor) -> str:
    """Return the SHA-256 of a latent's float32 values."""
    return hashlib.sha256(y_hat.contiguous().numpy().tobytes()).hexdigest()


def make(prior: str) -> str:
    """Write weights with tables, a latent and its stream; return the digest of y_hat."""
    torch.manual_seed(0)
    edge = edge_of(prior)
    with torch.no_grad():  # initial means and scales hardly vary, and initial densities need tables of thousands
        for name, parameter in edge.named_parameters():
            parameter.add_(1.0) if "matrices" in name else parameter.mul_(1.5)
    edge.update(scale_table=[0.11, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0, 8.0], force=True, update_quantiles=True)
    y = 3 * torch.randn(1, CHANNELS, 7, 10)
    y[0, 1, 2, 3], y[0, 2, 6, 9] = 300.0, -2000.5  # beyond every table
    stream = encode(edge, y)
    save_file(
        {**{f"state.{name}": each for name, each in edge.state_dict().items()}, "y": y}, FOLDER / f"{prior}.safetensors"
    )
    (FOLDER / f"{prior}.fsb").write_bytes(stream)
    return digest(y_hat_of(edge, unpack(stream)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("priors", nargs="*", choices=[[], *PRIORS], help="default: all")
    digests = json.loads((FOLDER / "digests.json").read_text())
    digests |= {prior: make(prior) for prior in parser.parse_args().priors or PRIORS}
    (FOLDER / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
