"""What the hardware cannot exceed: its arithmetic, its memory and its link against what one image takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, shape_inference

Shapes = dict[str, list[int]]

WEIGHTS_OF = {"Conv": 1, "Gemm": 1, "MatMul": 1, "QLinearConv": 3, "QLinearMatMul": 3}
"""Which input of an operator that multiplies and adds its weights are."""
PRECISIONS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
}


@dataclass(frozen=True)
class Work:
    """What a graph takes.

    Attributes:
        multiply_adds: of convolutions and matrix products, for an image.
        input_bytes: of an image's tensor.
        weight_bytes: of all weights.
        precision: what most weights are of.
    """

    multiply_adds: int
    input_bytes: int
    weight_bytes: int
    precision: str


@dataclass(frozen=True)
class Rates:
    """What the hardware does, where it is known.

    Attributes:
        tflops: 10^12 operations a second by precision, a multiply-add being two of them.
        link_bytes_per_s: from the host to the GPU.
        memory_bytes_per_s: of the GPU's memory.
    """

    tflops: dict[str, float]
    link_bytes_per_s: float | None
    memory_bytes_per_s: float | None


def work_of(file: Path) -> Work:
    """Read a graph with one input, whose first axis is the batch.

    Raises:
        ValueError: a shape in it is not known, even for a batch of one image.
    """
    model = onnx.load(file)
    (given,) = model.graph.input
    batch = given.type.tensor_type.shape.dim[0]
    # Where it has a name, the outputs' batch has the same.
    for tensor in (given, *model.graph.output):
        for dim in tensor.type.tensor_type.shape.dim:
            if dim == batch or not dim.WhichOneof("value"):
                dim.dim_value = 1
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: Shapes = {weight.name: list(weight.dims) for weight in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    elements: dict[int, int] = {}
    for weight in inferred.initializer:
        elements[weight.data_type] = elements.get(weight.data_type, 0) + prod(weight.dims)
    return Work(
        multiply_adds=sum(_multiply_adds(node, shapes) for node in inferred.node),
        input_bytes=prod(shapes[given.name]) * _item_bytes(given.type.tensor_type.elem_type),
        weight_bytes=sum(count * _item_bytes(element) for element, count in elements.items()),
        precision=PRECISIONS.get(max(elements, key=lambda element: elements[element]), "other"),
    )


def limits(work: Work, rates: Rates, batch_size: int) -> dict[str, float]:
    """The most images a second that each part of the hardware allows, by its name, as far as known.

    Args:
        batch_size: for how many images the weights are read once. What lies between the layers is taken to stay in
            caches, so that the memory's limit is never too low.
    """
    found = {}
    if work.precision in rates.tflops:
        found["arithmetic"] = rates.tflops[work.precision] * 1e12 / (2 * work.multiply_adds)
    if rates.link_bytes_per_s:
        found["link"] = rates.link_bytes_per_s / work.input_bytes
    if rates.memory_bytes_per_s:
        found["memory"] = rates.memory_bytes_per_s / (work.input_bytes + work.weight_bytes / batch_size)
    return found


def _multiply_adds(node: onnx.NodeProto, shapes: Shapes) -> int:
    if node.op_type not in WEIGHTS_OF:
        return 0
    weights, out = shapes.get(node.input[WEIGHTS_OF[node.op_type]], []), shapes.get(node.output[0], [])
    if not prod(weights) or not prod(out) or not weights or not out:
        raise ValueError(f"the shapes of '{node.name or node.output[0]}' ({node.op_type}) are not known")
    if node.op_type.endswith("Conv"):
        return prod(out) * prod(weights[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return prod(out) * weights[-1 if transposed else -2]


def _item_bytes(element: int) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
