from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import ModelError
from service.images import Preprocessing
from service.model_config import read_config
from tests.repositories import LABELS, write_model


def config_with(folder: Path, old: str, new: str) -> Path:
    """A model whose config.pbtxt has `new` where it had `old`."""
    model = write_model(folder)
    text = (model / "config.pbtxt").read_text()
    assert old in text
    (model / "config.pbtxt").write_text(text.replace(old, new))
    return model


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'


def test_what_the_service_needs_to_know(tmp_path: Path) -> None:
    extra = "dynamic_batching { max_queue_delay_microseconds: 2500 default_queue_policy { max_queue_size: 7 } }"
    config = read_config(write_model(tmp_path, max_batch_size=16, extra=extra))
    assert (config.name, config.input_name, config.output_name) == ("colours", "pixels", "logits")
    assert config.labels == LABELS
    assert config.preprocessing == Preprocessing(8, 8, 8, "bilinear")
    assert (config.max_batch_size, config.max_queue_delay_s, config.max_queue_size) == (16, 0.0025, 7)


def test_what_a_config_leaves_open(tmp_path: Path) -> None:
    config = read_config(write_model(tmp_path))
    assert (config.max_queue_delay_s, config.max_queue_size, config.instance_count) == (0, None, None)


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        ("instance_group [ { count: 3 kind: KIND_CPU } ]", 3),
        ("instance_group [ { kind: KIND_CPU } ]", 1),
        ("instance_group [ { count: 2 }, { count: 3 } ]", 5),
    ],
)
def test_instances(tmp_path: Path, groups: str, count: int) -> None:
    assert read_config(write_model(tmp_path, extra=groups)).instance_count == count


def test_preprocessing_parameters(tmp_path: Path) -> None:
    extra = "\n".join(
        [
            parameter("preprocessing.resize_short_side", "10"),
            parameter("preprocessing.resize_filter", "bicubic"),
            parameter("preprocessing.crop", "center"),
            parameter("preprocessing.channel_order", "RGB"),
            parameter("something_else", "is nobody's business here"),
        ]
    )
    assert read_config(write_model(tmp_path, extra=extra)).preprocessing == Preprocessing(8, 8, 10, "bicubic")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("resize_short_side", "7", "at least 8"),
        ("resize_short_side", "many", "'many': must be a whole number"),
        ("resize_filter", "nearest", "'nearest': must be bilinear or bicubic or lanczos"),
        ("crop", "random", "'random': must be center"),
        ("channel_order", "BGR", "'BGR': must be RGB"),
        ("resize_mode", "squash", "unknown parameter preprocessing.resize_mode"),
    ],
)
def test_preprocessing_that_the_service_cannot_do(tmp_path: Path, key: str, value: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_config(write_model(tmp_path, extra=parameter(f"preprocessing.{key}", value)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"onnxruntime"', '"tensorflow"', "backend 'tensorflow': must be \"onnxruntime\""),
        ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size must be at least 1"),
        ('name: "colours"', 'name: "colors"', "name 'colors' must equal the folder's, 'colours'"),
        ("TYPE_UINT8", "TYPE_FP32", "the input must be TYPE_UINT8, FORMAT_NHWC"),
        ("FORMAT_NHWC", "FORMAT_NCHW", "the input must be TYPE_UINT8, FORMAT_NHWC"),
        ("8, 8, 3 ]", "8, 8, 1 ]", r"dims \[ height, width, 3 \]"),
        ("8, 8, 3 ]", "-1, -1, 3 ]", r"dims \[ height, width, 3 \]"),
        ("8, 8, 3 ]", "8, 3 ]", r"dims \[ height, width, 3 \]"),
        ("TYPE_FP32", "TYPE_INT64", "the output must be TYPE_FP32"),
        ("dims: [ 3 ]", "dims: [ 3, 1 ]", "the output must be TYPE_FP32"),
        ("dims: [ 3 ]", "dims: [ 4 ]", "labels.txt: 3 labels for 4 classes"),
        ('"labels.txt"', '"names.txt"', "names.txt: .*No such file"),
        ('"labels.txt"', '"../labels.txt"', "must lie in the model's folder"),
        ("input {", "inputt {", 'config.pbtxt: .*"inputt"'),
        ("input {", "input { } input {", "2 inputs and 1 outputs"),
        ("max_batch_size: 8", "max_batch_size: many", "config.pbtxt: "),
    ],
)
def test_a_wrong_config_says_what_is_wrong(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_config(config_with(tmp_path, old, new))


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.pbtxt"):
        read_config(tmp_path)


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"config\.pbtxt: "):
        read_config(model)


def test_tritons_platform_in_place_of_its_backend(tmp_path: Path) -> None:
    assert (
        read_config(config_with(tmp_path, 'backend: "onnxruntime"', 'platform: "onnxruntime_onnx"')).name == "colours"
    )


def test_a_model_without_labels_has_its_indices(tmp_path: Path) -> None:
    assert read_config(config_with(tmp_path, 'label_filename: "labels.txt"', "")).labels == ("0", "1", "2")


def test_labels_may_hold_spaces_and_every_script(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "labels.txt").write_text("deep red\nзелёный\n青", encoding="utf-8")
    assert read_config(model).labels == ("deep red", "зелёный", "青")


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
    assert read_config(write_model(tmp_path, extra=policy)).serves([3, 10, 1]) == served


def test_a_version_that_the_policy_names_and_nobody_has(tmp_path: Path) -> None:
    config = read_config(write_model(tmp_path, extra="version_policy { specific { versions: [ 1, 4 ] } }"))
    with pytest.raises(ModelError, match="version 4, which has no folder"):
        config.serves([1, 2])
