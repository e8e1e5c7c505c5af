"""A model that costs next to nothing, so that the server is what is measured: LeNet-5's shape, weights drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TINY = "tiny"

CONFIG = """\
name: "tiny"
backend: "onnxruntime"
max_batch_size: 64
input { name: "pixels" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ 32, 32, 3 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] }
dynamic_batching { }
"""

LAYERS = {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5), "dense1": (400, 120), "dense2": (120, 84), "dense3": (84, 10)}
"""Their weights' shapes."""


def write_tiny(folder: Path) -> None:
    """Write the model's entry of a model repository."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    onnx.save(_graph(), folder / "1" / "model.onnx")


def _graph() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights: list[TensorProto] = [_weight("scale", np.array(1 / 255))]
    for name, shape in LAYERS.items():
        spread = np.sqrt(2 / np.prod(shape[1:] if len(shape) == 4 else shape[:1]))
        weights.append(_weight(name, random.normal(0, spread, shape)))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["image"], perm=[0, 3, 1, 2]),
        *_convolution("conv1", "image", "pooled1"),
        *_convolution("conv2", "pooled1", "pooled2"),
        helper.make_node("Flatten", ["pooled2"], ["flat"]),
        *_dense("dense1", "flat", "hidden1"),
        *_dense("dense2", "hidden1", "hidden2"),
        helper.make_node("MatMul", ["hidden2", "dense3"], ["logits"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 32, 32, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, TINY, [pixels], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _weight(name: str, values: np.ndarray[Any, Any]) -> TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def _convolution(name: str, taken: str, given: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", [taken, name], [f"{name}_sum"]),
        helper.make_node("Relu", [f"{name}_sum"], [f"{name}_relu"]),
        helper.make_node("MaxPool", [f"{name}_relu"], [given], kernel_shape=[2, 2], strides=[2, 2]),
    ]


def _dense(name: str, taken: str, given: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", [taken, name], [f"{name}_sum"]),
        helper.make_node("Relu", [f"{name}_sum"], [given]),
    ]
