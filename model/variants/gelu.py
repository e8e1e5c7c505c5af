"""GELU as one operator, where the exporter writes five."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.fusion_gelu import FusionGelu
from onnxruntime.transformers.onnx_model import OnnxModel

OPSET = 20
"""The first with GELU as one operator; read by every ONNX Runtime since 1.17."""


def with_gelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with GELU as one operator of the standard; a graph without GELU as it is.

    Of the exporter's five, two read the same input. Quantized, each gets a DequantizeLinear of its own, and ONNX
    Runtime no longer finds GELU in them. Without GELU a later opset gains nothing, and may lose: ONNX Runtime computes
    average pooling of opset 19 and later slower (neocognitron: 0.6 times the images/s).
    """
    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model
    fused = OnnxModel(onnx.version_converter.convert_version(model, OPSET))
    FusionGelu(fused).apply()
    fused.topological_sort()
    found: onnx.ModelProto = fused.model
    for node in found.graph.node:
        if node.op_type == "Gelu":
            node.domain = ""  # ONNX Runtime's own has become the standard's.
    used = {node.domain for node in found.graph.node}
    for opset in [opset for opset in found.opset_import if opset.domain not in used]:
        found.opset_import.remove(opset)
    return found
