"""An ONNX model in Triton's Python backend, which starts it in a process of its own for each instance."""

# mypy: disable-error-code="import-not-found"

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

# The process ignores PYTHONPATH.
sys.path.insert(0, os.environ["PEER_PACKAGES"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Triton knows the class and its methods by name."""

    def initialize(self, arguments: dict[str, str]) -> None:
        config = json.loads(arguments["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options)
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        tensors = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        logits = self.session.run(None, {self.input: np.concatenate(tensors)})[0]
        parts = np.split(logits, np.cumsum([len(tensor) for tensor in tensors])[:-1])
        return [triton.InferenceResponse([triton.Tensor(self.output, part)]) for part in parts]
