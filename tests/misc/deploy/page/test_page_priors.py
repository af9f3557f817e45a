"""The page in Chromium: an exported graph of every prior gives the streams of the edge half."""

import hashlib
import json
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from misc.datasets.image_folder import read_rgb
from misc.deploy.edge_graph import CoderGraph, EdgeGraph, EncoderGraph, onnx_graph, order_and_tables, output_names
from misc.deploy.transform_steps import transform_steps
from model import entropy
from model.halves import EdgeHalf
from tests.golden.make_golden import CHANNELS
from tests.misc.deploy.page.conftest import expect_status, opened

pytestmark = pytest.mark.slow
ANSWER = {"classes": [{"index": 0, "name": "any", "probability": 1.0}], "milliseconds": 1.0}


def edge_of(prior: str, levels: list[float] | None = None) -> EdgeHalf:
    """Return an untrained edge half whose latents of 9 x 11 need padding."""
    torch.manual_seed(0)
    extra = {} if prior == "FactorizedPrior" else {"hyper_channels": CHANNELS}
    edge = EdgeHalf(nn.Conv2d(3, CHANNELS, 8, 8), getattr(entropy, prior)(CHANNELS, **extra, levels=levels))
    with torch.no_grad():
        edge.encoder.weight.mul_(8)
        for name, parameter in edge.entropy_model.named_parameters():
            parameter.add_(1.0) if "matrices" in name else parameter.mul_(1.5)
    edge.update(scale_table=[0.11, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0, 8.0], force=True, update_quantiles=True)
    return edge.eval()


@pytest.mark.parametrize("prior", ["FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior", "Checkerboard"])
def test_streams(prior, browser, server, digits):
    transform = v2.Compose([v2.Resize((72, 88)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    edge = edge_of(prior)
    graph = EdgeGraph(edge)
    order, tables = order_and_tables(graph)
    encoder = onnx_graph(graph, output_names(order)).SerializeToString()
    content = {
        **{"format": 1, "stream": 2, "fingerprint": edge.fingerprint().hex(), "transform": transform_steps(transform)},
        **{"sha256": hashlib.sha256(encoder).hexdigest(), "max_positions": edge.entropy_model.max_positions},
        **{"stride": edge.entropy_model.stride, "order": order, "tables": tables},
    }
    sent = []

    def answer(route):
        sent.append(route.request.post_data_buffer)
        route.fulfill(status=200, json=ANSWER)

    with opened(browser, "about:blank") as tab:
        tab.route("**/edge.json", lambda route: route.fulfill(status=200, body=json.dumps(content)))
        tab.route("**/encoder.onnx", lambda route: route.fulfill(status=200, body=encoder))
        tab.route("**/classify", answer)
        tab.goto(server)
        expect_status(tab, "Ready.")
        path = next(digits.glob("val/*/*.png"))
        tab.set_input_files("#file", path)
        tab.locator("#result").wait_for()
    assert sent == edge.encode(transform(read_rgb(path))[None])


def answer_with(body: bytes) -> Callable:
    return lambda route: route.fulfill(status=200, body=body)


@pytest.mark.parametrize("prior", ["FactorizedPrior", "MeanScaleHyperprior"])
def test_streams_of_any_rate(prior, browser, server, digits):
    transform = v2.Compose([v2.Resize((72, 88)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    edge = edge_of(prior, [0.4, 0.1, 0.05])
    graph = CoderGraph(edge)
    order, tables = order_and_tables(graph)
    files = {
        "encoder.onnx": onnx_graph(EncoderGraph(edge), ["latent"]).SerializeToString(),
        "coder.onnx": onnx_graph(graph, output_names(order)).SerializeToString(),
    }
    content = {
        **{"format": 2, "stream": 3, "fingerprint": edge.fingerprint().hex(), "transform": transform_steps(transform)},
        **{"sha256": hashlib.sha256(files["encoder.onnx"]).hexdigest(), "last_level": 32},
        **{"coder_sha256": hashlib.sha256(files["coder.onnx"]).hexdigest()},
        **{"max_positions": edge.entropy_model.max_positions},
        **{"stride": edge.entropy_model.stride, "order": order, "tables": tables},
    }
    files["edge.json"] = json.dumps(content).encode()
    sent = []

    def answer(route):
        sent.append(route.request.post_data_buffer)
        route.fulfill(status=200, json=ANSWER)

    with opened(browser, "about:blank") as tab:
        for name, body in files.items():
            tab.route(f"**/{name}", answer_with(body))
        tab.route("**/classify", answer)
        tab.goto(server)
        expect_status(tab, "Ready.")
        path = next(digits.glob("val/*/*.png"))
        tab.set_input_files("#file", path)
        tab.locator("#result").wait_for()
        tab.locator("#rate").fill("100")
        expect_status(tab, re.compile(f"{len(edge.encode(transform(read_rgb(path))[None], 32)[0])} bytes"))
    x = transform(read_rgb(path))[None]
    assert sent == [edge.encode(x, level)[0] for level in (16, 32)]
