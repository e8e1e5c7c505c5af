"""The models that the clauses speak of: small graphs whose answers anyone can predict.

`python -m tests.conformance.models FOLDER` writes them for a server that is to be tested.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

LABELS = ("tabby", "tiger", "lynx", "puma")
TABLE = (10.0, 20.0, 30.0)
SLOW_ROUNDS = 60
SLOW_WIDTH = 512

# Names of the protocol, of config.pbtxt and of ONNX. BF16 is not here: onnxruntime's Python interface cannot take it.
DATATYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("TYPE_BOOL", TensorProto.BOOL),
    "UINT8": ("TYPE_UINT8", TensorProto.UINT8),
    "UINT16": ("TYPE_UINT16", TensorProto.UINT16),
    "UINT32": ("TYPE_UINT32", TensorProto.UINT32),
    "UINT64": ("TYPE_UINT64", TensorProto.UINT64),
    "INT8": ("TYPE_INT8", TensorProto.INT8),
    "INT16": ("TYPE_INT16", TensorProto.INT16),
    "INT32": ("TYPE_INT32", TensorProto.INT32),
    "INT64": ("TYPE_INT64", TensorProto.INT64),
    "FP16": ("TYPE_FP16", TensorProto.FLOAT16),
    "FP32": ("TYPE_FP32", TensorProto.FLOAT),
    "FP64": ("TYPE_FP64", TensorProto.DOUBLE),
    "BYTES": ("TYPE_STRING", TensorProto.STRING),
}


@dataclass(frozen=True)
class Value:
    """An input or output; `dims` are what config.pbtxt says, without the batch dimension."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    labels: bool = False

    def config(self, kind: str) -> str:
        labels = ' label_filename: "labels.txt"' if self.labels else ""
        return f'{kind} {{ name: "{self.name}" data_type: {DATATYPES[self.datatype][0]} dims: {[*self.dims]}{labels} }}'

    def info(self, batched: bool) -> onnx.ValueInfoProto:
        variable = [f"{self.name}_{axis}" if size < 0 else size for axis, size in enumerate(self.dims)]
        return helper.make_tensor_value_info(
            self.name, DATATYPES[self.datatype][1], ["batch", *variable] if batched else variable
        )


def write_repository(repository: Path) -> None:
    """Write every model that the suite needs."""
    write_simple(repository)
    for datatype in ("FP32", "FP16", "UINT8"):
        write_identity(repository, f"identity_{datatype.lower()}", datatype, (-1,))
    write_identity(repository, "identity_bytes", "BYTES", (1,))
    write_identity(repository, "unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    write_identity(repository, "dynamic", "FP32", (-1, -1), max_batch_size=4)
    write_identity(repository, "controlled", "FP32", (2,), max_batch_size=4)
    preferred = "dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 10000000 }"
    write_identity(repository, "preferred", "FP32", (2,), max_batch_size=4, extra=preferred)
    write_datatypes(repository)
    write_classifier(repository)
    write_lookup(repository)
    write_slow(repository, "slow", "default_queue_policy { max_queue_size: 2 }")
    write_slow(repository, "impatient", "default_queue_policy { default_timeout_microseconds: 50000 }")
    overridable = "default_timeout_microseconds: 60000000 allow_timeout_override: true"
    write_slow(repository, "overridable", f"default_queue_policy {{ {overridable} }}")
    write_slow(repository, "prioritized", "priority_levels: 2 default_priority_level: 2")


def write_simple(repository: Path) -> None:
    """Sum and difference of two inputs."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    inputs = [Value("INPUT0", "INT32", (16,)), Value("INPUT1", "INT32", (16,))]
    outputs = [Value("OUTPUT0", "INT32", (16,)), Value("OUTPUT1", "INT32", (16,))]
    write_model(repository, "simple", inputs, outputs, {1: (nodes, [])})


def write_identity(
    repository: Path,
    name: str,
    datatype: str,
    dims: tuple[int, ...],
    *,
    max_batch_size: int = 8,
    extra: str = "dynamic_batching { }",
) -> None:
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    inputs, outputs = [Value("INPUT0", datatype, dims)], [Value("OUTPUT0", datatype, dims)]
    write_model(repository, name, inputs, outputs, {1: (nodes, [])}, max_batch_size=max_batch_size, extra=extra)


def identity_graph() -> bytes:
    """The model "controlled" as its file has it, to be sent in a request."""
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    return graph([Value("INPUT0", "FP32", (2,))], [Value("OUTPUT0", "FP32", (2,))], nodes, []).SerializeToString()


def write_datatypes(repository: Path) -> None:
    """One input and one output, its copy, of each datatype that JSON and typed contents can carry: FP16 is none."""
    datatypes = [datatype for datatype in DATATYPES if datatype != "FP16"]
    nodes = [helper.make_node("Identity", [f"IN_{datatype}"], [f"OUT_{datatype}"]) for datatype in datatypes]
    inputs = [Value(f"IN_{datatype}", datatype, (2,)) for datatype in datatypes]
    outputs = [Value(f"OUT_{datatype}", datatype, (2,)) for datatype in datatypes]
    write_model(repository, "datatypes", inputs, outputs, {1: (nodes, [])}, max_batch_size=0)


def write_classifier(repository: Path) -> None:
    """Scores in, logits out; version 2 doubles them, so that an answer tells its version."""
    versions = {
        version: (
            [helper.make_node("Mul", ["SCORES", "factor"], ["LOGITS"])],
            [helper.make_tensor("factor", TensorProto.FLOAT, [], [float(version)])],
        )
        for version in (1, 2)
    }
    write_model(
        repository,
        "classifier",
        [Value("SCORES", "FP32", (len(LABELS),))],
        [Value("LOGITS", "FP32", (len(LABELS),), labels=True)],
        versions,
        extra="dynamic_batching { } version_policy { all { } }",
    )
    (repository / "classifier" / "labels.txt").write_text("\n".join(LABELS) + "\n")


def write_lookup(repository: Path) -> None:
    """The entry of TABLE at an index; an index that it does not have makes the model fail."""
    nodes = [helper.make_node("Gather", ["table", "INDEX"], ["ENTRY"])]
    table = helper.make_tensor("table", TensorProto.FLOAT, [len(TABLE)], TABLE)
    inputs, outputs = [Value("INDEX", "INT64", (1,))], [Value("ENTRY", "FP32", (1,))]
    write_model(repository, "lookup", inputs, outputs, {1: (nodes, [table])})


def write_slow(repository: Path, name: str, batching: str) -> None:
    """The identity, after many products with a matrix that add nothing but time: one instance, batches of one."""
    initializers = [
        helper.make_tensor("identity", TensorProto.FLOAT, [SLOW_WIDTH] * 2, np.eye(SLOW_WIDTH, dtype=np.float32)),
        helper.make_tensor("spread", TensorProto.INT64, [3], [1, SLOW_WIDTH, SLOW_WIDTH]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("last", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["INPUT0", "axes"], ["wide"]),
        helper.make_node("Tile", ["wide", "spread"], ["round0"]),
        *(
            helper.make_node("MatMul", [f"round{i}", "identity"], [f"round{i + 1}"], name=f"round{i}")
            for i in range(SLOW_ROUNDS)
        ),
        helper.make_node("ReduceMean", [f"round{SLOW_ROUNDS}", "last"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["OUTPUT0"]),
    ]
    write_model(
        repository,
        name,
        [Value("INPUT0", "FP32", (1,))],
        [Value("OUTPUT0", "FP32", (1,))],
        {1: (nodes, initializers)},
        max_batch_size=1,
        extra=f"dynamic_batching {{ {batching} }}",
    )


def write_model(
    repository: Path,
    name: str,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    versions: Mapping[int, tuple[Sequence[onnx.NodeProto], Sequence[onnx.TensorProto]]],
    *,
    max_batch_size: int = 8,
    extra: str = "",
) -> None:
    folder = repository / name
    folder.mkdir(parents=True)
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {max_batch_size}"]
    lines += [value.config("input") for value in inputs] + [value.config("output") for value in outputs]
    lines += ["instance_group [ { count: 1 kind: KIND_CPU } ]", *filter(None, [extra]), ""]
    (folder / "config.pbtxt").write_text("\n".join(lines))
    for version, (nodes, initializers) in versions.items():
        (folder / str(version)).mkdir()
        model = graph(inputs, outputs, nodes, initializers, batched=max_batch_size > 0)
        onnx.save(model, folder / str(version) / "model.onnx")


def graph(
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    *,
    batched: bool = True,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [value.info(batched) for value in inputs],
        [value.info(batched) for value in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_repository(parser.parse_args().folder)
