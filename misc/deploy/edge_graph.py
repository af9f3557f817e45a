"""The edge half as an ONNX graph: images in, the integers that the entropy coder needs out."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from misc.errors import UserError
from model.coding.channel import Call
from model.entropy import JointAutoregressive
from model.halves import EdgeHalf
from model.layers import ResidualBlock

POSITIONS = {None: "all", 0: "even", 1: "odd"}
EXAMPLE_SIZE = (72, 88)  # any size whose sides differ; those of y are 9 and 11, so a hyperprior's padding is traced


class EdgeGraph(nn.Module):
    """What the device computes before coding: `nonfinite`, then for each call of the sender its symbols and indexes.

    `nonfinite` (B, h, w), the latent's size, counts the channels of y that are not finite. Symbols and table indexes
    are (B, C, h', w'), padded to the hyper latent's stride. The indexes of tables per channel are left out. All int32.

    Args:
        edge: with coder tables.

    Raises:
        UserError: a prior that cannot be one graph.
    """

    def __init__(self, edge: EdgeHalf):
        super().__init__()
        if isinstance(edge.entropy_model, JointAutoregressive):
            raise UserError(
                "JointAutoregressive cannot be exported: its graph would run the context model once per position, each "
                "after the one before; choose Checkerboard, which needs two passes"
            )
        self.encoder = with_strided_skips(edge.encoder)
        self._record = edge.entropy_model.recorder()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, calls = self.calls(x)
        outputs = [(~torch.isfinite(y)).sum(1)]
        for call in calls:
            outputs += [call.symbols] if call.tables.per_channel else [call.symbols, call.indexes]
        return tuple(output.to(torch.int32) for output in outputs)

    def calls(self, x: Tensor) -> tuple[Tensor, list[Call]]:
        """Return y and the sender's calls for images (B, 3, H, W)."""
        y = self.encoder(x)
        return y, self._record(y)


def with_strided_skips(encoder: nn.Module) -> nn.Module:
    """Return a copy whose residual blocks let the skip's 1x1 convolution do the stride, the same sums in less time.

    `ResidualBlock` slices for the sake of its backward pass.
    """
    twin = copy.deepcopy(encoder)
    for block in twin.modules():
        if isinstance(block, ResidualBlock) and isinstance(block.skip, nn.Conv2d):
            block.skip.stride, block.stride = (block.stride, block.stride), 1
    return twin


def order_and_tables(graph: EdgeGraph) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return edge.json's `order`, the graph's outputs in the order of decoding, and its integer `tables` by name."""
    with torch.no_grad():
        _, calls = graph.calls(torch.zeros(1, 3, *EXAMPLE_SIZE))
    order, tables = [], {}
    for call in calls:
        name = "z" if call.tables.per_channel and len(calls) > 1 else "y"
        positions = POSITIONS[call.parity]
        symbols = name if positions == "all" else f"{name}_{positions}"
        indexes = None if call.tables.per_channel else f"{symbols}_indexes"
        order.append({"symbols": symbols, "indexes": indexes, "tables": name, "positions": positions})
        tables[name] = {"offsets": call.tables.first.tolist(), "cdf": [row.tolist() for row in call.tables.cdf]}
    return order, tables


def output_names(order: list[dict[str, Any]]) -> list[str]:
    """Return the names of the graph's outputs."""
    named = [name for entry in order for name in (entry["symbols"], entry["indexes"]) if name]
    return ["nonfinite", *named]


def onnx_graph(graph: EdgeGraph, names: list[str]) -> onnx.ModelProto:
    """Return the graph with input `x` (B, 3, H, W) of any batch and image size, and outputs of these names."""
    example = torch.zeros(2, 3, *EXAMPLE_SIZE)
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    quiet = log_level(logging.getLogger("torch.fx"), logging.ERROR)
    with warnings.catch_warnings(), quiet, torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own parts: deprecations, guards on sizes
        program = torch.onnx.export(
            graph.eval(), (example,), dynamo=True, dynamic_shapes=(dynamic,), output_names=names, verbose=False
        )
    file = io.BytesIO()
    program.save(file)
    return _slim(onnx.load_from_string(file.getvalue()))


@contextmanager
def log_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Set a logger's level until the context ends."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes, and store float64 weights that are small integers as int32."""
    graph = model.graph
    del graph.value_info[:], model.metadata_props[:], graph.metadata_props[:]
    for each in (*graph.node, *graph.input, *graph.output):
        del each.metadata_props[:]
        each.ClearField("doc_string")
    graph.input[0].name, old = "x", graph.input[0].name
    for node in graph.node:
        node.input[:] = ["x" if name == old else name for name in node.input]
    casts = []
    for initializer in graph.initializer:
        del initializer.metadata_props[:]
        if initializer.data_type == onnx.TensorProto.DOUBLE and _are_small_integers(initializer):
            name, values = initializer.name, numpy_helper.to_array(initializer)
            initializer.CopyFrom(numpy_helper.from_array(values.astype(np.int32), f"{name}_int32"))
            casts.append(onnx.helper.make_node("Cast", [initializer.name], [name], to=onnx.TensorProto.DOUBLE))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _are_small_integers(initializer: onnx.TensorProto) -> bool:
    values = numpy_helper.to_array(initializer)
    return values.size > 1 and bool(np.all(np.abs(values) < 2**31) and np.all(values == values.round()))
