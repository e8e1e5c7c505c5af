"""float16, for GPUs: a CPU computes it in float32.

Features that are not trained (`model.nets.features`) stay in float32, as far as their standard deviations: squares of
pixels from 0 to 255 are beyond float16, whose largest number is 65,504.
"""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from model.golden import LOGIT_TOLERANCE
from model.images import Pixels
from model.variants.gelu import with_gelu
from model.variants.kind import Kind


def to_float16(model: onnx.ModelProto, _: Pixels) -> onnx.ModelProto:
    model = with_gelu(model)
    # The exporter tells types of constants, too, which the converter would take for those of float16.
    del model.graph.value_info[:]
    converted = OnnxModel(
        convert_float_to_float16(model, keep_io_types=True, node_block_list=_of_features(model.graph))
    )
    # Between two nodes that stay in float32, too, there are casts to float16 and back.
    converted.remove_cascaded_cast_nodes()
    converted.remove_useless_cast_nodes()
    # Casts are put at the end of the graph, and what stands before one may keep float16 for its type.
    converted.topological_sort()
    found: onnx.ModelProto = converted.model
    del found.graph.value_info[:]
    return found


def _of_features(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that lead to the division by features' standard deviations, and of that."""
    names: list[str] = []
    needed: set[str] = set()
    for node in reversed(graph.node):  # In topological order.
        if needed.intersection(node.output) or any(name.endswith("net.std") for name in node.input):
            names.append(node.name)
            needed.update(node.input)
    return names


FLOAT16 = Kind(
    "float16: weights and arithmetic",
    to_float16,
    calibrated=False,
    error=0.01,
    agreement=0.995,
    logit_tolerance=LOGIT_TOLERANCE,
)
