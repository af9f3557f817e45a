"""Generate the golden streams, which pin the current version of the stream format.

    python -m tests.golden.make_golden

Run this only for a new version of the format: if these files no longer decode to the same latents, neither do those of
users.
"""

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
PRIORS = ("FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior", "JointAutoregressive", "Checkerboard")
CHANNELS = 4


def edge_of(prior: str) -> EdgeHalf:
    """Return an untrained edge half whose inputs are latents."""
    extra = {} if prior == "FactorizedPrior" else {"hyper_channels": CHANNELS}
    return EdgeHalf(nn.Identity(), getattr(entropy, prior)(CHANNELS, **extra)).eval()


def y_hat_of(edge: EdgeHalf, stream: Stream) -> Tensor:
    return edge.entropy_model.decompress([stream.payload], stream.size)


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
    (stream,) = edge.encode(y)
    save_file(
        {**{f"state.{name}": each for name, each in edge.state_dict().items()}, "y": y}, FOLDER / f"{prior}.safetensors"
    )
    (FOLDER / f"{prior}.fsb").write_bytes(stream)
    return digest(y_hat_of(edge, unpack(stream)))


if __name__ == "__main__":
    digests = {prior: make(prior) for prior in PRIORS}
    (FOLDER / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
