"""float16, for GPUs: a CPU computes it in float32."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from model.golden import LOGIT_TOLERANCE
from model.images import Pixels
from model.variants.gelu import with_gelu
from model.variants.kind import Kind


def to_float16(model: onnx.ModelProto, _: Pixels) -> onnx.ModelProto:
    converted = OnnxModel(convert_float_to_float16(with_gelu(model), keep_io_types=True))
    # Casts are put at the end of the graph, and what stands before one may keep float16 for its type.
    converted.topological_sort()
    found: onnx.ModelProto = converted.model
    del found.graph.value_info[:]
    return found


FLOAT16 = Kind(
    "float16: weights and arithmetic",
    to_float16,
    calibrated=False,
    error=0.01,
    agreement=0.995,
    logit_tolerance=LOGIT_TOLERANCE,
)
