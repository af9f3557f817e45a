"""The edge half as ONNX graphs: images in, the integers that the entropy coder needs out.

A model of variable rate is two graphs, so that one image can be coded at several rates while g_a runs once.
"""

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


class EncoderGraph(nn.Module):
    """g_a alone, as a model of variable rate needs it: x (B, 3, H, W) to `latent` (B, C, h, w)."""

    def __init__(self, edge: EdgeHalf):
        super().__init__()
        self.encoder = with_strided_skips(edge.encoder)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.encoder(x)

    def inputs(self) -> dict[str, Tensor]:
        """Return an example of each input, by name."""
        return {"x": torch.zeros(2, 3, *EXAMPLE_SIZE)}


class EdgeGraph(EncoderGraph):
    """What the device computes before coding: `nonfinite`, then for each call of the sender its symbols and indexes.

    `nonfinite` (B, h, w), the latent's size, counts the channels of y that are not finite. Symbols and table indexes
    are (B, C, h', w'), padded to the hyper latent's stride. The indexes of tables per channel are left out. All int32.

    Args:
        edge: with coder tables, of one rate.

    Raises:
        UserError: a prior that cannot be one graph.
    """

    def __init__(self, edge: EdgeHalf):
        check_prior(edge)
        super().__init__(edge)
        self._record = edge.entropy_model.recorder()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.encoder(x)
        return integers(y, self._record(y))

    def calls(self) -> list[Call]:
        """Return the sender's calls for the example."""
        return self._record(self.encoder(self.inputs()["x"]))


class CoderGraph(nn.Module):
    """What follows g_a in a model of variable rate: `latent` (y) and `level` (B,), int64, to `EdgeGraph`'s outputs.

    Args:
        edge: with coder tables, of variable rate.

    Raises:
        UserError: a prior that cannot be one graph.
    """

    def __init__(self, edge: EdgeHalf):
        super().__init__()
        check_prior(edge)
        self.gains = edge.entropy_model.gains  # its parameters become the graph's
        self._channels = self.gains.log_gain.shape[1]
        self._record = edge.entropy_model.recorder()

    def forward(self, latent: Tensor, level: Tensor) -> tuple[Tensor, ...]:
        return integers(latent, self._record(latent, level))

    def inputs(self) -> dict[str, Tensor]:
        """Return an example of each input, by name."""
        y = torch.zeros(2, self._channels, *(side // 8 for side in EXAMPLE_SIZE))  # "y" is an output, its symbols
        return {"latent": y, "level": torch.zeros(2, dtype=torch.int64)}

    def calls(self) -> list[Call]:
        """Return the sender's calls for the example."""
        return self._record(*self.inputs().values())


def check_prior(edge: EdgeHalf) -> None:
    """Raise a UserError if the prior cannot be one graph."""
    if isinstance(edge.entropy_model, JointAutoregressive):
        raise UserError(
            "JointAutoregressive cannot be exported: its graph would run the context model once per position, each "
            "after the one before; choose Checkerboard, which needs two passes"
        )


def integers(y: Tensor, calls: list[Call]) -> tuple[Tensor, ...]:
    """Return what is described at `EdgeGraph`, of y and the sender's calls."""
    outputs = [(~torch.isfinite(y)).sum(1)]
    for call in calls:
        outputs += [call.symbols] if call.tables.per_channel else [call.symbols, call.indexes]
    return tuple(output.to(torch.int32) for output in outputs)


def with_strided_skips(encoder: nn.Module) -> nn.Module:
    """Return a copy whose residual blocks let the skip's 1x1 convolution do the stride, the same sums in less time.

    `ResidualBlock` slices for the sake of its backward pass.
    """
    twin = copy.deepcopy(encoder)
    for block in twin.modules():
        if isinstance(block, ResidualBlock) and isinstance(block.skip, nn.Conv2d):
            block.skip.stride, block.stride = (block.stride, block.stride), 1
    return twin


def order_and_tables(graph: EdgeGraph | CoderGraph) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return edge.json's `order`, the graph's outputs in the order of decoding, and its integer `tables` by name."""
    with torch.no_grad():
        calls = graph.calls()
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


def onnx_graph(graph: EncoderGraph | CoderGraph, names: list[str]) -> onnx.ModelProto:
    """Return the graph with its inputs, of any batch and image size, and outputs of these names."""
    example = graph.inputs()
    dynamic = tuple({axis: Dim.DYNAMIC for axis in (0, 2, 3) if axis < each.ndim} for each in example.values())
    quiet = log_level(logging.getLogger("torch.fx"), logging.ERROR)
    with warnings.catch_warnings(), quiet, torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own parts: deprecations, guards on sizes
        program = torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            dynamo=True,
            dynamic_shapes=dynamic,
            output_names=names,
            verbose=False,
        )
    file = io.BytesIO()
    program.save(file)
    return _slim(onnx.load_from_string(file.getvalue()), list(example))


@contextmanager
def log_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Set a logger's level until the context ends."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _slim(model: onnx.ModelProto, inputs: list[str]) -> onnx.ModelProto:
    """Name the inputs, drop the exporter's notes, and store float64 weights that are small integers as int32."""
    graph = model.graph
    del graph.value_info[:], model.metadata_props[:], graph.metadata_props[:]
    for each in (*graph.node, *graph.input, *graph.output):
        del each.metadata_props[:]
        each.ClearField("doc_string")
    renamed = {given.name: name for given, name in zip(graph.input, inputs, strict=True)}
    for given in graph.input:
        given.name = renamed[given.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
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
