"""float32 with ONNX Runtime's optimisations of the graph done beforehand, those that any runtime can read.

Basic ones alone: constants folded, batch normalisation and additions folded into convolutions, what does nothing left
out; all that in operators of the standard, so that Triton, other versions and other execution providers load it. The
extended ones write operators of ONNX Runtime's own for one execution provider, and the layout's are of one processor's
register width; ONNX Runtime does both when it opens the file, so that leaving them out here costs nothing later.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from model.golden import LOGIT_TOLERANCE
from model.images import Pixels
from model.variants.gelu import with_gelu
from model.variants.kind import Kind


def to_optimised(model: onnx.ModelProto, _: Pixels) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(with_gelu(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(file)
    # It claims every opset that this ONNX Runtime has, and an older one would refuse those that it does not know.
    used = {node.domain for node in optimised.graph.node}
    for opset in [opset for opset in optimised.opset_import if opset.domain not in used]:
        optimised.opset_import.remove(opset)
    return optimised


OPTIMISED = Kind(
    "float32; graph optimised by ONNX Runtime beforehand (basic optimisations, GELU as one operator)",
    to_optimised,
    calibrated=False,
    error=1e-4,
    agreement=0.999,
    logit_tolerance=LOGIT_TOLERANCE,
)
