from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.errors import ModelError
from service.model_config import ModelConfig, complete, read_proto, served_versions
from service.tensors import Graph, TensorSpec
from tests.repositories import LABELS, write_model

GRAPH = Graph((TensorSpec("pixels", "UINT8", (-1, 8, 8, 3)),), (TensorSpec("logits", "FP32", (-1, 3)),))


def read_config(folder: Path, graph: Graph = GRAPH) -> ModelConfig:
    return complete(read_proto(folder), graph, folder)


def config_with(folder: Path, old: str, new: str) -> Path:
    """A model whose config.pbtxt has `new` where it had `old`."""
    model = write_model(folder)
    text = (model / "config.pbtxt").read_text()
    assert old in text
    (model / "config.pbtxt").write_text(text.replace(old, new))
    return model


def test_what_the_service_needs_to_know(tmp_path: Path) -> None:
    extra = "dynamic_batching { max_queue_delay_microseconds: 2500 default_queue_policy { max_queue_size: 7 } }"
    config = read_config(write_model(tmp_path, max_batch_size=16, extra=extra))
    assert config.name == "colours"
    assert config.inputs == (TensorSpec("pixels", "UINT8", (8, 8, 3)),)
    assert config.outputs == (TensorSpec("logits", "FP32", (3,)),)
    assert config.labels == {"logits": ("red", "green", "blue")}
    assert (config.max_batch_size, config.max_queue_delay_s, config.max_queue_size) == (16, 0.0025, 7)
    assert config.batches_requests


@pytest.mark.parametrize(("extra", "max_batch_size"), [("", 8), ("dynamic_batching { }", 1), ("", 1)])
def test_requests_share_a_batch_only_where_the_config_says_so(tmp_path: Path, extra: str, max_batch_size: int) -> None:
    assert not read_config(write_model(tmp_path, max_batch_size=max_batch_size, extra=extra)).batches_requests


def test_a_priority_may_have_a_queue_policy_of_its_own(tmp_path: Path) -> None:
    extra = """dynamic_batching { priority_levels: 4 default_priority_level: 3
    priority_queue_policy { key: 2 value { default_timeout_microseconds: 5000000 } }
    priority_queue_policy { key: 3 value { default_timeout_microseconds: 5000000 allow_timeout_override: true } }
    priority_queue_policy { key: 4 value { default_timeout_microseconds: 5000000 timeout_action: DELAY } } }"""
    config = read_config(write_model(tmp_path, extra=extra))
    assert (config.priority_levels, config.default_priority) == (4, 3)
    assert [config.queue_timeout_s(level, 0) for level in (1, 2, 3, 4)] == [None, 5, 5, None]
    assert [config.queue_timeout_s(level, 2_000_000) for level in (1, 2, 3, 4)] == [None, 5, 2, None]
    assert config.queue_timeout_s(3, 9_000_000) == 5


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("dynamic_batching { priority_levels: 101 }", "priority_levels is 101: must be at most 100"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 5 }", "level is 5: must be one of .*levels, 2"),
        ("dynamic_batching { priority_levels: 2 }", "level is 0: must be one of priority_levels, 2"),
        ("dynamic_batching { default_priority_level: 1 }", "level is 1: must be one of priority_levels, 0"),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 } }",
            "priority_queue_policy 3: must be one of priority_levels, 2",
        ),
    ],
)
def test_priorities_that_cannot_be(tmp_path: Path, extra: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_config(write_model(tmp_path, extra=extra))


def test_a_graph_alone_makes_a_config(tmp_path: Path) -> None:
    config = read_config(tmp_path)
    assert config.inputs == (TensorSpec("pixels", "UINT8", (8, 8, 3)),)
    assert config.outputs == (TensorSpec("logits", "FP32", (3,)),)
    assert (config.max_batch_size, config.batches_requests) == (4, True)
    assert (config.name, config.proto.backend, config.proto.platform) == (
        tmp_path.name,
        "onnxruntime",
        "onnxruntime_onnx",
    )


def test_a_graph_without_a_batch_axis_is_not_batched(tmp_path: Path) -> None:
    graph = Graph((TensorSpec("x", "FP32", (1, 3, 4, 4)),), (TensorSpec("y", "BYTES", (1, -1)),))
    config = read_config(tmp_path, graph)
    assert config.max_batch_size == 0
    assert config.inputs == graph.inputs
    assert config.outputs == graph.outputs


@pytest.mark.parametrize(("max_batch_size", "batches_requests"), [(1, False), (2, True)])
def test_a_config_without_tensors_has_those_of_the_graph(
    tmp_path: Path, max_batch_size: int, batches_requests: bool
) -> None:
    (tmp_path / "config.pbtxt").write_text(f"max_batch_size: {max_batch_size}")
    config = read_config(tmp_path)
    assert (config.inputs[0].dims, config.outputs[0].dims) == ((8, 8, 3), (3,))
    assert (config.max_batch_size, config.batches_requests) == (max_batch_size, batches_requests)
    assert config.proto.HasField("dynamic_batching") == batches_requests


def test_a_config_given_as_json_takes_the_files_place(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    override = json.dumps({"max_batch_size": 3, "dynamic_batching": {}})
    assert complete(read_proto(model, override), GRAPH, model).max_batch_size == 3
    with pytest.raises(ModelError, match=r"config override: .*colour"):
        read_proto(model, json.dumps({"colour": "red"}))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"onnxruntime"', '"tensorflow"', "backend 'tensorflow': must be \"onnxruntime\""),
        ("max_batch_size: 8", "max_batch_size: -1", "max_batch_size is -1: must not be negative"),
        ("max_batch_size: 8", "max_batch_size: 0", r"dims \[8, 8, 3\]; in the graph they are \[-1, 8, 8, 3\]"),
        ('name: "colours"', 'name: "colors"', "name 'colors' must equal the folder's, 'colours'"),
        ("TYPE_UINT8", "TYPE_FP32", "input 'pixels' is TYPE_FP32; in the graph it is TYPE_UINT8"),
        ("TYPE_FP32", "TYPE_INT64", "output 'logits' is TYPE_INT64; in the graph it is TYPE_FP32"),
        ("8, 8, 3 ]", "8, 3 ]", r"input 'pixels' has dims \[8, 3\]"),
        ("8, 8, 3 ]", "8, 9, 3 ]", r"input 'pixels' has dims \[8, 9, 3\]"),
        ('"pixels"', '"image"', "input 'image' is not in the graph, which has pixels"),
        ('"labels.txt"', '"names.txt"', "names.txt: .*No such file"),
        ('"labels.txt"', '"../labels.txt"', "must lie in the model's folder"),
        ("input {", "inputt {", 'config.pbtxt: .*"inputt"'),
        ("max_batch_size: 8", "max_batch_size: many", "config.pbtxt: "),
        ("dynamic_batching {", "sequence_batching {", "sequence_batching is set"),
        ("dims: [ 3 ]", "dims: [ 3 ] reshape { shape: [ 3 ] }", "output.reshape is set"),
        ("max_batch_size: 8", 'default_model_filename: "../m.onnx" max_batch_size: 8', "must be a file's name alone"),
        ("max_batch_size: 8", 'default_model_filename: "\\000" max_batch_size: 8', "must be a file's name alone"),
        ('"labels.txt"', '"labels\\000txt"', "labels\\\\x00txt: embedded null"),
        ("TYPE_UINT8", "99", "data_type is 99, which stands for nothing"),
        (
            "dynamic_batching {",
            "instance_group { kind: 99 } dynamic_batching {",
            "kind is 99, which stands for nothing",
        ),
        (
            "dynamic_batching {",
            "dynamic_batching { priority_queue_policy { key: 1 value { timeout_action: 99 } }",
            "timeout_action is 99, which stands for nothing",
        ),
    ],
)
def test_a_wrong_config_says_what_is_wrong(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_config(config_with(tmp_path, old, new))


def test_an_input_that_the_config_leaves_out(tmp_path: Path) -> None:
    graph = Graph((*GRAPH.inputs, TensorSpec("mask", "BOOL", (-1, 8))), GRAPH.outputs)
    with pytest.raises(ModelError, match="the graph's input 'mask' is not in it"):
        read_config(write_model(tmp_path), graph)


@pytest.mark.parametrize("max_batch_size", [2, 8])
def test_a_graph_of_one_batch_size(tmp_path: Path, max_batch_size: int) -> None:
    graph = Graph((TensorSpec("pixels", "UINT8", (8, 8, 8, 3)),), (TensorSpec("logits", "FP32", (8, 3)),))
    model = write_model(tmp_path, max_batch_size=max_batch_size)
    if max_batch_size == 8:
        assert read_config(model, graph).max_batch_size == 8
        return
    with pytest.raises(ModelError, match="max_batch_size is 2, but the graph takes batches of 8 only"):
        read_config(model, graph)


def test_fields_without_effect_are_named(tmp_path: Path) -> None:
    extra = 'optimization { eager_batching: true } instance_group { host_policy: "a" } response_cache { enable: true }'
    names = read_config(write_model(tmp_path, extra=extra)).without_effect()
    assert names == ["instance_group.host_policy", "optimization.eager_batching", "response_cache"]


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"config\.pbtxt: "):
        read_config(model)


def test_tritons_platform_in_place_of_its_backend(tmp_path: Path) -> None:
    config = read_config(config_with(tmp_path, 'backend: "onnxruntime"', 'platform: "onnxruntime_onnx"'))
    assert config.proto.backend == "onnxruntime"


def test_labels_may_hold_spaces_and_every_script(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "labels.txt").write_text("deep red\nзелёный\n青", encoding="utf-8")
    assert read_config(model).labels["logits"] == ("deep red", "зелёный", "青")


def test_labels_may_lie_in_a_folder_of_the_models(tmp_path: Path) -> None:
    model = config_with(tmp_path, '"labels.txt"', '"1/labels.txt"')
    (model / "labels.txt").rename(model / "1" / "labels.txt")
    assert read_config(model).labels["logits"] == LABELS


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [10]),
        ("version_policy { latest { num_versions: 2 } }", [3, 10]),
        ("version_policy { latest { num_versions: 9 } }", [1, 3, 10]),
        ("version_policy { all { } }", [1, 3, 10]),
        ("version_policy { specific { versions: [ 3, 1 ] } }", [1, 3]),
    ],
)
def test_version_policies(tmp_path: Path, policy: str, served: list[int]) -> None:
    assert served_versions(read_proto(write_model(tmp_path, extra=policy)), [3, 10, 1]) == served


def test_a_version_that_the_policy_names_and_nobody_has(tmp_path: Path) -> None:
    proto = read_proto(write_model(tmp_path, extra="version_policy { specific { versions: [ 1, 4 ] } }"))
    with pytest.raises(ModelError, match="version 4, which has no folder"):
        served_versions(proto, [1, 2])
