import numpy as np
import onnxruntime
import pytest
import torch

from misc.deploy.edge_graph import EdgeGraph, onnx_graph, order_and_tables, output_names
from misc.errors import UserError
from model.encoder import ResidualEncoder
from model.entropy import JointAutoregressive
from model.halves import EdgeHalf
from tests.golden.make_edges import PRIORS, edge_of

SIZES = [(1, 64, 64), (3, 70, 99), (2, 33, 57), (1, 8, 8), (1, 1, 1)]


@pytest.mark.parametrize(
    "prior", [pytest.param(prior, marks=[pytest.mark.slow] * (prior != "FactorizedPrior")) for prior in PRIORS]
)
def test_the_graph_gives_the_recorded_integers_for_any_batch_and_size(prior):
    edge = edge_of(prior)
    graph = EdgeGraph(edge)
    order, tables = order_and_tables(graph)
    model = onnx_graph(graph, output_names(order))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == output_names(order)
    assert {entry["tables"] for entry in order} == set(tables)
    for images, height, width in SIZES:
        x = 4 * torch.randn(images, 3, height, width)
        with torch.no_grad():
            expected = graph(x)
        for got, wanted in zip(session.run(None, {"x": x.numpy()}), expected, strict=True):
            assert got.dtype == np.int32 and np.array_equal(got, wanted.numpy())
    x[...] = float("nan")
    nonfinite = session.run(["nonfinite"], {"x": x.numpy()})[0]
    assert (nonfinite == 4).all()  # all channels


@pytest.mark.parametrize("prior", PRIORS)
def test_the_recorded_calls_are_what_the_sender_sends(prior):
    edge = edge_of(prior)
    y = 3 * torch.randn(2, 4, 6, 9)
    with torch.no_grad():
        calls = edge.entropy_model.recorder()(y)
    order, _ = order_and_tables(EdgeGraph(edge))
    assert [entry["tables"] for entry in order] == (["y"] if len(calls) == 1 else ["z"] + ["y"] * (len(calls) - 1))
    assert all(call.symbols.shape == call.indexes.shape for call in calls)
    assert [entry["positions"] for entry in order][-1] == ("odd" if prior == "Checkerboard" else "all")


def test_a_prior_that_needs_a_pass_per_position_is_refused():
    edge = EdgeHalf(ResidualEncoder((4, 4, 4)), JointAutoregressive(4, 4))
    with pytest.raises(UserError, match=r"JointAutoregressive cannot be exported.*Checkerboard"):
        EdgeGraph(edge)
