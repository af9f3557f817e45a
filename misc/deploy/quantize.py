"""Static quantisation of an exported encoder to 8 bits, by ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from misc.deploy.edge_graph import log_level


class Images(CalibrationDataReader):
    """Transformed images, float32 (3, H, W), one at a time."""

    def __init__(self, images: Iterable[np.ndarray]):
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        x = next(self._images, None)
        return None if x is None else {"x": x[None]}


def quantized(model: onnx.ModelProto, images: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Return the graph with g_a in 8 bits: QDQ, static, one scale per output channel of a convolution.

    Weights have 7 bits: with 8, the 16-bit sums of x86 CPUs without VNNI saturate. A hyperprior's networks, in float64,
    stay exact.

    Args:
        model: from `misc.deploy.edge_graph.onnx_graph`.
        images: whose activations set the ranges, transformed as in the test.
    """
    # onnxruntime advises on the root logger to preprocess; that is done.
    with tempfile.TemporaryDirectory() as folder, log_level(logging.getLogger(), logging.ERROR):
        source, prepared, target = (str(Path(folder) / name) for name in ("source", "prepared", "target"))
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Relu"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)
