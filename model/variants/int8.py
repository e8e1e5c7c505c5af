"""int8, for CPUs: static, calibrated on training images, as QuantizeLinear and DequantizeLinear around the layers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from model.images import Pixels
from model.variants.gelu import with_gelu
from model.variants.kind import Kind

OPERATORS = ("Conv", "Gemm", "MaxPool", "Relu")
"""What ONNX Runtime computes in 8 bits on a CPU, and what may stand between two of those."""

LAYERS = ("Conv", "Gemm")

CALIBRATION_BATCH_SIZE = 10


def to_int8(model: onnx.ModelProto, images: Pixels) -> onnx.ModelProto:
    model = with_gelu(model)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        # The exporter has optimised the graph; ONNX Runtime's file of it would claim opsets that it does not use.
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Batches(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=_outermost(model.graph),
            # U8S8; 7 bits, so that the 16-bit sums of processors without VNNI cannot saturate.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            per_channel=True,
            # An activation's range is the mean over batches, not the widest: one image in 1,000 would set the scale.
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(quantized)


def _outermost(graph: onnx.GraphProto) -> list[str]:
    """The names of the layers that no other layer comes before, and of those that none comes after.

    None where these are all there are: nothing would be left to hold in 8 bits.
    """
    of_output = {output: node for node in graph.node for output in node.output}
    behind: dict[str, set[str]] = {}
    """By the name of each node, the layers that lead to it."""
    for node in graph.node:  # In topological order.
        before = [of_output[name] for name in node.input if name in of_output]
        behind[node.name] = set().union(
            *(behind[each.name] | ({each.name} if each.op_type in LAYERS else set()) for each in before)
        )
    layers = [node.name for node in graph.node if node.op_type in LAYERS]
    inner = set().union(*(behind[layer] for layer in layers))
    outermost = [layer for layer in layers if not behind[layer] or layer not in inner]
    return outermost if len(outermost) < len(layers) else []


class _Batches:
    """What `quantize_static` reads calibration images from."""

    def __init__(self, name: str, images: Pixels) -> None:
        self._feeds: Iterator[dict[str, npt.NDArray[np.uint8]]] = (
            {name: images[i : i + CALIBRATION_BATCH_SIZE]} for i in range(0, len(images), CALIBRATION_BATCH_SIZE)
        )

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        return next(self._feeds, None)


INT8 = Kind(
    "int8: weights of 7 bits by channel, activations of 8 bits, static, QDQ; first and last layer in float32, if there "
    "are others",
    to_int8,
    calibrated=True,
    error=0.05,
    agreement=0.98,
    # An activation that rounds to the next level elsewhere moves those after it: by more than float's last bits.
    logit_tolerance=0.05,
)
