"""Generate the golden exports, which pin the current version of the exported directory, and the streams of some images.

    python -m tests.golden.make_edges [PRIOR ...]

Run this only for a new version of the directory: if the client no longer encodes with these, neither do users' devices
that get a new client.
"""

import argparse
from pathlib import Path

import torch
from torchvision.transforms import v2

from misc.deploy import edge_directory
from misc.deploy.edge_client import VERSIONS
from misc.deploy.edge_graph import CoderGraph, EdgeGraph, EncoderGraph, onnx_graph, order_and_tables, output_names
from misc.deploy.sample_images import generated_samples
from misc.deploy.transform_steps import transform_steps
from model import entropy
from model.encoder import ResidualEncoder
from model.halves import EdgeHalf

FOLDER = Path(__file__).resolve().parent / "edges"
PRIORS = ("FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior", "Checkerboard")
VARIABLE_RATE = ("FactorizedPrior-levels", "MeanScaleHyperprior-levels")  # directories of format 2
LEVELS = [0.4, 0.1, 0.05]
RATES = (0.5, 0.0, 0.3, 0.77, 1.0, 0.6)  # of the images' streams
CHANNELS = 4
TRANSFORM = v2.Compose(
    [
        v2.Resize(48),
        v2.CenterCrop((40, 56)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.1] * 3),
    ]
)
IMAGES = 6


def edge_of(prior: str) -> EdgeHalf:
    """Return a small untrained edge half with coder tables, some of whose symbols lie outside of them."""
    torch.manual_seed(0)
    name, *levels = prior.split("-")
    extra = {} if name == "FactorizedPrior" else {"hyper_channels": CHANNELS}
    encoder = ResidualEncoder((CHANNELS,) * 3)
    edge = EdgeHalf(encoder, getattr(entropy, name)(CHANNELS, **extra, levels=LEVELS if levels else None)).eval()
    with torch.no_grad():  # initial means and scales hardly vary, and initial densities need tables of thousands
        for name, parameter in edge.named_parameters():
            parameter.add_(1.0) if "matrices" in name else parameter.mul_(2.0)
    edge.update(scale_table=[0.11, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0, 8.0], force=True, update_quantiles=True)
    return edge


def make(prior: str) -> None:
    """Write an export and the streams of the first generated images."""
    edge = edge_of(prior)
    gains = edge.entropy_model.gains
    versions = VERSIONS[0] if gains is None else VERSIONS[1]
    graph = EdgeGraph(edge) if gains is None else CoderGraph(edge)
    order, tables = order_and_tables(graph)
    content = {
        "format": versions.directory,
        "stream": versions.stream,
        **({} if gains is None else {"last_level": gains.last}),
        "fingerprint": edge.fingerprint().hex(),
        "transform": transform_steps(TRANSFORM),
        "max_positions": edge.entropy_model.max_positions,
        "stride": edge.entropy_model.stride,
        "order": order,
        "tables": tables,
        "classes": None,
    }
    folder = FOLDER / prior
    folder.mkdir(parents=True, exist_ok=True)
    graphs = [onnx_graph(graph, output_names(order))]
    if gains is not None:
        graphs.insert(0, onnx_graph(EncoderGraph(edge), ["latent"]))
    edge_directory.write(folder, graphs[0], "float32", content, *graphs[1:])
    for name in (edge_directory.CLIENT, edge_directory.REQUIREMENTS):
        (folder / name).unlink()
    for number, image in enumerate(generated_samples(IMAGES).images):
        level = None if gains is None else gains.level_of(RATES[number])
        (stream,) = edge.encode(TRANSFORM(image)[None], level)
        (folder / f"{number}.fsb").write_bytes(stream)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("priors", nargs="*", help="default: all")
    for prior in parser.parse_args().priors or (*PRIORS, *VARIABLE_RATE):
        make(prior)
