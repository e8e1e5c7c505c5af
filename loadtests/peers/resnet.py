"""ResNet-50 (v1.5: the stride is in the 3x3) at 224x224 with weights drawn at random: what GPUs are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 128
input {{ name: "pixels" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ 224, 224, 3 ] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [ 1000 ] }}
dynamic_batching {{ }}
parameters {{ key: "preprocessing.resize_short_side" value {{ string_value: "256" }} }}
"""

PRECISIONS: dict[str, tuple[int, type[np.floating[Any]]]] = {
    "resnet50": (TensorProto.FLOAT, np.float32),
    "resnet50_float16": (TensorProto.FLOAT16, np.float16),
}
"""Of the weights and the arithmetic, by the model's name."""

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks, and the stride of the first of them."""
EXPANSION = 4
BRANCH = 0.25
"""How much of a block's sum its branch is: without batch normalisation the sums would grow beyond float16."""


def write_resnet(folder: Path) -> None:
    """Write the entry of a model repository; the folder's name is one of PRECISIONS."""
    element, dtype = PRECISIONS[folder.name]
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=folder.name))
    onnx.save(_Builder(element, dtype).build(folder.name), folder / "1" / "model.onnx")


class _Builder:
    """The graph as it grows; batch normalisation is folded into the convolutions, as an export has it."""

    def __init__(self, element: int, dtype: type[np.floating[Any]]) -> None:
        self._element = element
        self._dtype = dtype
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []

    def build(self, name: str) -> onnx.ModelProto:
        self._add("Cast", ["pixels"], "numbers", to=self._element)
        self._weight("scale", np.full((), 1 / 64))
        self._weight("middle", np.full((), 2.0))
        self._add("Mul", ["numbers", "scale"], "scaled")
        self._add("Sub", ["scaled", "middle"], "centred")
        self._add("Transpose", ["centred"], "image", perm=[0, 3, 1, 2])
        self._convolution("stem", "image", 3, 64, 7, stride=2)
        self._add("Relu", ["stem"], "stem_relu")
        self._add("MaxPool", ["stem_relu"], "block", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        given, channels = "block", 64
        for stage, (width, blocks, stride) in enumerate(STAGES):
            for block in range(blocks):
                given = self._block(f"s{stage}b{block}", given, channels, width, stride if block == 0 else 1)
                channels = width * EXPANSION
        self._add("GlobalAveragePool", [given], "pooled")
        self._add("Flatten", ["pooled"], "features")
        self._weight("dense", self._random.normal(0, channels**-0.5, (channels, 1000)))
        self._weight("bias", np.zeros(1000))
        self._add("Gemm", ["features", "dense", "bias"], "scores")
        self._add("Cast", ["scores"], "logits", to=TensorProto.FLOAT)
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 224, 224, 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self._nodes, name, [pixels], [logits], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def _block(self, name: str, taken: str, channels: int, width: int, stride: int) -> str:
        out = width * EXPANSION
        self._convolution(f"{name}_1", taken, channels, width, 1)
        self._add("Relu", [f"{name}_1"], f"{name}_1_relu")
        self._convolution(f"{name}_2", f"{name}_1_relu", width, width, 3, stride=stride)
        self._add("Relu", [f"{name}_2"], f"{name}_2_relu")
        self._convolution(f"{name}_3", f"{name}_2_relu", width, out, 1, gain=BRANCH)
        shortcut = taken
        if channels != out:
            shortcut = f"{name}_shortcut"
            self._convolution(shortcut, taken, channels, out, 1, stride=stride, gain=0.5)
        self._add("Add", [f"{name}_3", shortcut], f"{name}_sum")
        self._add("Relu", [f"{name}_sum"], name)
        return name

    def _convolution(
        self, name: str, taken: str, channels: int, out: int, size: int, *, stride: int = 1, gain: float = 1.0
    ) -> None:
        spread = gain * (2 / (channels * size * size)) ** 0.5
        self._weight(f"{name}_weight", self._random.normal(0, spread, (out, channels, size, size)))
        self._weight(f"{name}_bias", np.zeros(out))
        pads = [size // 2] * 4
        self._add("Conv", [taken, f"{name}_weight", f"{name}_bias"], name, strides=[stride] * 2, pads=pads)

    def _add(self, operator: str, taken: list[str], given: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, taken, [given], **attributes))

    def _weight(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self._weights.append(numpy_helper.from_array(values.astype(self._dtype), name))
