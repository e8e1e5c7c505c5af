"""The training package: labelled images in, a model repository out. Never imported by the service."""

import os

# ONNX Runtime reports its use to its makers from 1.32 on, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
