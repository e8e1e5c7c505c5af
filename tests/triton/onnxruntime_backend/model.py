"""Triton's "onnxruntime" backend, written in Python: it opens a model's `<version>/model.onnx` and runs its batches.

Triton starts this file in a process of its own, with the Python packages that `tests.triton.install` put aside.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The process ignores PYTHONPATH.
sys.path.insert(0, os.environ["TRITON_ONNXRUNTIME_PACKAGES"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton  # type: ignore[import-not-found]

COMPLETED_MAX_BATCH_SIZE = 4
"""For a graph with a batch axis, where the configuration has none."""


class TritonPythonModel:
    """One instance of a model; Triton knows the class and its methods by name."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """What the configuration leaves open comes from the graph, as in Triton's own backend."""
        written = config.as_dict()
        if written["input"] and written["output"]:
            return config
        session = _open(Path(triton.get_model_dir(), written["default_model_filename"]))
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in (*inputs, *outputs)):
            config.set_max_batch_size(written["max_batch_size"] or COMPLETED_MAX_BATCH_SIZE)
            if written["max_batch_size"] > 1:
                config.set_dynamic_batching()
        batched = written["max_batch_size"] > 0
        if not written["input"]:
            for tensor in inputs:
                config.add_input(_completed(tensor, batched))
        if not written["output"]:
            for tensor in outputs:
                config.add_output(_completed(tensor, batched))
        return config

    def initialize(self, arguments: dict[str, str]) -> None:
        config = json.loads(arguments["model_config"])
        folder = Path(arguments["model_repository"], arguments["model_version"])
        self.session = _open(folder / config["default_model_filename"])
        self.batched = config["max_batch_size"] > 0
        self.types = {output["name"]: triton.triton_string_to_numpy(output["data_type"]) for output in config["output"]}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        if not self.batched:
            return [self._respond([request])[0] for request in requests]
        return self._respond(requests)

    def _respond(self, requests: Sequence[Any]) -> list[Any]:
        names = [value.name for value in self.session.get_inputs()]
        inputs = [[triton.get_input_tensor_by_name(request, name).as_numpy() for name in names] for request in requests]
        batch = {name: np.concatenate(parts) for name, parts in zip(names, zip(*inputs, strict=True), strict=True)}
        if not self.batched:
            batch = dict(zip(names, inputs[0], strict=True))
        try:
            outputs = self.session.run(None, {name: _text(value) for name, value in batch.items()})
        except Exception as error:  # onnxruntime's errors have no other common ancestor
            return [triton.InferenceResponse([], triton.TritonError(str(error))) for _ in requests]
        ends = np.cumsum([len(of_request[0]) for of_request in inputs])[:-1]
        tensors = {
            value.name: np.split(_bytes(output), ends) if self.batched else [_bytes(output)]
            for value, output in zip(self.session.get_outputs(), outputs, strict=True)
        }
        return [
            triton.InferenceResponse(
                [triton.Tensor(name, parts[position].astype(self.types[name])) for name, parts in tensors.items()]
            )
            for position in range(len(requests))
        ]


def _open(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _completed(tensor: onnxruntime.NodeArg, batched: bool) -> dict[str, Any]:
    word = tensor.type.removeprefix("tensor(").removesuffix(")")
    datatype = {"float": "FP32", "float16": "FP16", "double": "FP64"}.get(word, word.upper())
    dims = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "data_type": f"TYPE_{datatype}", "dims": dims[1:] if batched else dims}


def _text(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Triton's strings are bytes, onnxruntime's are text."""
    if value.dtype != np.object_:
        return value
    return np.array([element.decode() for element in value.ravel()], np.object_).reshape(value.shape)


def _bytes(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if value.dtype != np.object_:
        return value
    return np.array([element.encode() for element in value.ravel()], np.object_).reshape(value.shape)
