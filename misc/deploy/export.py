"""Export the edge half of a student to a directory that a device without PyTorch can use."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from misc.config.entries import image_transform
from misc.config.load import Config
from misc.deploy import edge_directory
from misc.deploy.check_export import check_streams, compare
from misc.deploy.edge_client import EdgeEncoder, EdgeError
from misc.deploy.edge_graph import CoderGraph, EdgeGraph, EncoderGraph, onnx_graph, order_and_tables, output_names
from misc.deploy.load import load_edge, load_server
from misc.deploy.quantize import quantized
from misc.deploy.sample_images import Samples, generated_samples, samples_of, test_samples
from misc.errors import UserError
from misc.progress import progress_bar
from model.halves import ServerHalf

CHECKED = 100
CALIBRATED = 200
COMPARED = 2000


class Exported(NamedTuple):
    """What was exported.

    Attributes:
        fingerprint: of the streams, 8 hexadecimal digits.
        encoder_bytes: size of encoder.onnx.
        checks: one line per check that it passed, with figures.
    """

    fingerprint: str
    encoder_bytes: int
    checks: list[str]


def export(
    config: Config,
    weights: Path,
    output: Path,
    images: Path | None = None,
    int8: bool = False,
    compared: int = COMPARED,
) -> Exported:
    """Write encoder.onnx, edge.json and the client, after encoding images by the model and by the client.

    With variable rate there is coder.onnx too: what follows g_a.

    A quantised encoder keeps the fingerprint of the float one: a fingerprint names what can decode a stream, and the
    decoder, its tables and the coding of the symbols are the same.

    Args:
        config: the student's, composed for its test.
        weights: the student's.
        output: the directory; an earlier export in it is replaced.
        images: folder of images for calibration, and for the check if the config's test images are not on disk.
        int8: quantise g_a.
        compared: images at most on which a quantised encoder is compared with the float one.

    Raises:
        UserError: a model or an image transform that cannot be exported, a float encoder whose streams differ from the
            model's, or a directory that cannot be written to.
    """
    try:
        return _export(config, weights, output, images, int8, compared)
    except EdgeError as error:
        raise UserError(str(error)) from error


def _export(config: Config, weights: Path, output: Path, images: Path | None, int8: bool, compared: int) -> Exported:
    edge = load_edge(config, weights)
    is_variable = edge.entropy_model.gains is not None
    graph = CoderGraph(edge) if is_variable else EdgeGraph(edge)
    order, tables = order_and_tables(graph)
    content = edge_directory.description(config, edge, order, tables)
    given = samples_of(images) if images else None
    samples = test_samples(config) or given or generated_samples(CHECKED)
    if int8 and given is None and samples.labels is None:
        raise UserError(
            "int8 needs images to calibrate on: give --calibration DIR, or prepare the config's test images"
        )
    with edge_directory.staged(output) as folder:
        encoder, coder = onnx_graph(graph, output_names(order)), None
        if is_variable:
            encoder, coder = onnx_graph(EncoderGraph(edge), ["latent"]), encoder
        edge_directory.write(folder, encoder, "float32", content, coder)
        client = EdgeEncoder(folder)
        edge.to(memory_format=torch.channels_last)  # as scripts/encode.py
        checked = samples.some(CHECKED)
        checks = [check_streams(edge, image_transform(config), client, checked).text(samples.name)]
        if int8:
            calibration = given or samples
            encoder = quantized(encoder, _transformed(client, calibration.some(CALIBRATED)))
            edge_directory.write(folder, encoder, "int8", content, coder)
            both = samples.some(compared)
            server, why_not = _server(config, weights, both)
            comparison = compare(client, EdgeEncoder(folder), both, server)
            checks += [
                f"calibrated on {min(CALIBRATED, len(calibration.images)):,} {calibration.name}",
                f"{len(both.images):,} {samples.name}: {comparison.text()}{why_not}",
            ]
        return Exported(edge.fingerprint().hex(), encoder.ByteSize(), checks)


def _transformed(client: EdgeEncoder, samples: Samples) -> Iterator[np.ndarray]:
    return (client.transform(image) for image in progress_bar(samples.images, "calibrating"))


def _server(config: Config, weights: Path, samples: Samples) -> tuple[ServerHalf | None, str]:
    """Return the server half, or None and why top-1 cannot be measured."""
    if samples.labels is None:
        return None, "; top-1 not measured: the images have no labels"
    try:
        return load_server(config, weights), ""
    except UserError as error:
        return None, f"; top-1 not measured: {error}"
