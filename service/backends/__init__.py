"""Engines that run a model's graph: ONNX Runtime in this process, or a Triton server."""

import os

# ONNX Runtime reports its use to its makers from 1.32 on, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
