"""float16, for GPUs: a CPU computes it in float32."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from model.golden import LOGIT_TOLERANCE
from model.images import Pixels
from model.variants.gelu import with_gelu
from model.variants.kind import Kind


def to_float16(model: onnx.ModelProto, _: Pixels) -> onnx.ModelProto:
    converted: onnx.ModelProto = convert_float_to_float16(with_gelu(model), keep_io_types=True)
    return converted


FLOAT16 = Kind(
    "float16: weights and arithmetic",
    to_float16,
    calibrated=False,
    error=0.01,
    agreement=0.995,
    logit_tolerance=LOGIT_TOLERANCE,
)
