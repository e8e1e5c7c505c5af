"""extension_model_configuration: a model's config.pbtxt as the server understood it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from grpc import StatusCode
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.conformance.wire import Grpc, Http, model_path, refused

pytestmark = pytest.mark.extension("model_configuration")

MODELS = [
    "simple",
    "classifier",
    "datatypes",
    "dynamic",
    "unbatched",
    "preferred",
    "slow",
    "overridable",
    "prioritized",
]


def config(http: Http, model: str) -> Any:
    """The JSON, which must be that of a ModelConfig message."""
    return json_format.ParseDict(http.get(model_path(model) + "/config").json, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("model", MODELS)
def test_configuration_is_the_same_over_grpc(http: Http, grpc: Grpc, model: str) -> None:
    """ModelConfigResponse: the message whose JSON HTTP answers."""
    answer = grpc.call("ModelConfig", service_pb2.ModelConfigRequest(name=model))
    assert config(http, model) == answer.config


@pytest.mark.parametrize("version", ["1", "2"])
def test_configuration_of_a_version(http: Http, version: str) -> None:
    """The version is optional in the path."""
    assert http.get(model_path("classifier", version) + "/config").json["name"] == "classifier"


def test_members_that_clients_index(http: Http) -> None:
    """Clients index these members without asking whether they are there."""
    answer = http.get("/v2/models/simple/config").json
    assert answer["name"] == "simple"
    assert answer["backend"] == "onnxruntime"
    assert answer["max_batch_size"] == 8
    assert [entry["name"] for entry in answer["input"]] == ["INPUT0", "INPUT1"]
    assert [entry["name"] for entry in answer["output"]] == ["OUTPUT0", "OUTPUT1"]
    assert answer["input"][0]["data_type"] == "TYPE_INT32"
    assert answer["input"][0]["format"] == "FORMAT_NONE"
    assert answer["input"][0]["dims"] == [16]
    assert answer["version_policy"] == {"latest": {"num_versions": 1}}


def test_platform_and_file_are_filled_in(http: Http) -> None:
    """What config.pbtxt leaves out: the backend's platform and file name."""
    answer = config(http, "simple")
    assert (answer.platform, answer.default_model_filename) == ("onnxruntime_onnx", "model.onnx")


def test_max_batch_size_of_an_unbatched_model(http: Http) -> None:
    """max_batch_size is there when it is 0."""
    assert http.get("/v2/models/unbatched/config").json["max_batch_size"] == 0


def test_variable_dimensions(http: Http) -> None:
    """dims: as they were written, -1 for variable ones, without the batch dimension."""
    assert http.get("/v2/models/dynamic/config").json["input"][0]["dims"] == [-1, -1]


def test_labels(http: Http) -> None:
    """label_filename: the output's."""
    assert http.get("/v2/models/classifier/config").json["output"][0]["label_filename"] == "labels.txt"


def test_version_policy(http: Http) -> None:
    """version_policy: as it was written."""
    assert http.get("/v2/models/classifier/config").json["version_policy"] == {"all": {}}


def test_instances(http: Http) -> None:
    """instance_group: as many and of the kind that was written."""
    (group,) = http.get("/v2/models/simple/config").json["instance_group"]
    assert (group["count"], group["kind"]) == (1, "KIND_CPU")


def test_dynamic_batching(http: Http) -> None:
    """dynamic_batching: preferred sizes and delay."""
    batching = http.get("/v2/models/preferred/config").json["dynamic_batching"]
    assert batching["preferred_batch_size"] == [2, 4]
    assert batching["max_queue_delay_microseconds"] == 10000000


def test_no_dynamic_batching(http: Http) -> None:
    """dynamic_batching: absent where it is not configured."""
    assert "dynamic_batching" not in http.get("/v2/models/simple/config").json


def test_queue_policy(http: Http) -> None:
    """default_queue_policy: size, timeout and whether a request may override it."""
    size = config(http, "slow").dynamic_batching.default_queue_policy
    assert (size.max_queue_size, size.default_timeout_microseconds) == (2, 0)
    timeout = config(http, "overridable").dynamic_batching.default_queue_policy
    assert (timeout.default_timeout_microseconds, timeout.allow_timeout_override) == (60000000, True)


def test_priorities(http: Http) -> None:
    """priority_levels and the default one."""
    batching = config(http, "prioritized").dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)


@pytest.mark.parametrize(("model", "version"), [("nope", ""), ("simple", "9")])
def test_unknown_model(http: Http, grpc: Grpc, model: str, version: str) -> None:
    """What is unknown has no configuration."""
    # Triton answered 400 before it answered 404.
    text = http.get(model_path(model, version) + "/config").error(404, 400)
    assert text.startswith(f"Request for unknown model: '{model}'")
    with refused(StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT, text=text):
        grpc.call("ModelConfig", service_pb2.ModelConfigRequest(name=model, version=version))
