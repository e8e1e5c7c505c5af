"""extension_model_repository: the index, loading and unloading."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from tests.conformance.models import identity_graph
from tests.conformance.wire import MALFORMED, TIMEOUT_S, Grpc, Http, Json, infer_request, refused, rows

pytestmark = pytest.mark.extension("model_repository")

CONTROLLED = "/v2/repository/models/controlled"
OVERRIDE: Json = {
    "backend": "onnxruntime",
    "max_batch_size": 2,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [2]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [2]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
}
REQUEST: Json = {"inputs": [rows("INPUT0", [[1, 2]])]}
# A model that is not there is the client's fault; Triton calls every failure to load its own.
CANNOT_LOAD = (400, 404, 500)
CANNOT_LOAD_GRPC = (StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.INTERNAL)


def index(http: Http, **body: Json) -> list[Json]:
    return list(http.post("/v2/repository/index", body).json)


def entries(http: Http, model: str) -> list[Json]:
    return [entry for entry in index(http) if entry["name"] == model]


def unload(http: Http, model: str) -> None:
    """Unload a model and wait for it to be gone: the answer may come while it still works on requests."""
    assert http.post(f"/v2/repository/models/{model}/unload", {}).status == 200
    deadline = time.monotonic() + TIMEOUT_S
    while any(entry.get("state") != "UNAVAILABLE" for entry in entries(http, model)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def controlled(http: Http) -> Iterator[str]:
    """The model that these clauses load and unload, as its repository has it before and after."""
    yield CONTROLLED
    unload(http, "controlled")
    assert http.post(CONTROLLED + "/load", {}).status == 200


@pytest.fixture
def sent(http: Http) -> Iterator[str]:
    """The name of a model that only a request's files make."""
    yield "sent"
    unload(http, "sent")


def file_parameters(content: bytes = b"", version: int = 7) -> Json:
    content = content or identity_graph()
    return {
        "config": json.dumps(OVERRIDE),
        f"file:{version}/model.onnx": base64.b64encode(content).decode(),
    }


def test_index(http: Http) -> None:
    """Repository index: an entry for each version, with its state."""
    answer = index(http)
    assert {"name": "simple", "version": "1", "state": "READY"}.items() <= entries(http, "simple")[0].items()
    assert sorted(entry["version"] for entry in answer if entry["name"] == "classifier") == ["1", "2"]


def test_index_without_a_body(http: Http) -> None:
    """Repository index: the body may be empty."""
    assert any(entry["name"] == "simple" for entry in http.post("/v2/repository/index").json)


def test_index_over_grpc(http: Http, grpc: Grpc) -> None:
    """RepositoryIndex: the same entries."""
    answer = grpc.call("RepositoryIndex", service_pb2.RepositoryIndexRequest())
    over_grpc = {(entry.name, entry.version, entry.state, entry.reason) for entry in answer.models}
    assert over_grpc == {
        (entry["name"], entry.get("version", ""), entry.get("state", ""), entry.get("reason", ""))
        for entry in index(http)
    }


def test_index_is_read_with_post(http: Http) -> None:
    """Repository index: POST, since it takes parameters."""
    assert http.get("/v2/repository/index").error(405)


def test_unload_and_load(http: Http, controlled: str) -> None:
    """Unload, load: what happens to the index, the metadata, the readiness and the inference."""
    assert http.infer("controlled", REQUEST).status == 200
    unload(http, "controlled")
    (entry,) = entries(http, "controlled")
    assert (entry["version"], entry["state"], entry["reason"]) == ("1", "UNAVAILABLE", "unloaded")
    assert not any(entry["name"] == "controlled" for entry in index(http, ready=True))
    assert http.get("/v2/models/controlled/ready").error(400, 404, 503)
    text = "Request for unknown model: 'controlled' has no available versions"
    assert http.get("/v2/models/controlled").error(404, 400) == text
    assert http.infer("controlled", REQUEST).error(404, 400) == text
    assert http.post(controlled + "/load", {}).status == 200
    assert http.get("/v2/models/controlled/ready").status == 200
    assert http.infer("controlled", REQUEST).status == 200


def test_unload_leaves_the_server_ready(http: Http, controlled: str) -> None:
    """Unload: a model that someone unloaded is no failure."""
    unload(http, "controlled")
    assert http.get("/v2/health/ready").status == 200


def test_unload_empties_the_answer(http: Http, controlled: str) -> None:
    """Load, unload: 200 and no body."""
    answers = [http.post(controlled + "/unload"), http.post(controlled + "/load")]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"")] * 2


def test_unload_twice(http: Http, controlled: str) -> None:
    """Unload: nothing to do is no error."""
    unload(http, "controlled")
    assert http.post(controlled + "/unload", {}).status == 200


@pytest.mark.extension("model_repository(unload_dependents)")
def test_unload_dependents(http: Http, controlled: str) -> None:
    """Unload with unload_dependents: a boolean parameter."""
    assert http.post(controlled + "/unload", {"parameters": {"unload_dependents": True}}).status == 200


def test_unload_and_load_over_grpc(http: Http, grpc: Grpc, controlled: str) -> None:
    """RepositoryModelUnload, RepositoryModelLoad."""
    grpc.call("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name="controlled"))
    unload(http, "controlled")
    request = infer_request("controlled", [("INPUT0", "FP32", [1, 2])], [bytes(8)])
    text = "Request for unknown model: 'controlled' has no available versions"
    with refused(StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT, text=text):
        grpc.infer(request)
    assert not grpc.call("ModelReady", service_pb2.ModelReadyRequest(name="controlled")).ready
    grpc.call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="controlled"))
    assert grpc.infer(request).model_name == "controlled"


def test_load_a_loaded_model(http: Http, controlled: str) -> None:
    """Load: loading again is no error."""
    assert http.post(controlled + "/load", {}).status == 200
    assert http.infer("controlled", REQUEST).status == 200


def test_load_with_a_configuration(http: Http, controlled: str) -> None:
    """Load with config: the request's configuration instead of the repository's."""
    assert http.post(controlled + "/load", {"parameters": {"config": json.dumps(OVERRIDE)}}).status == 200
    assert http.get("/v2/models/controlled/config").json["max_batch_size"] == 2
    text = http.infer("controlled", {"inputs": [rows("INPUT0", [[1, 2]] * 3)]}).error(400)
    assert "batch-size must be <= 2" in text


def test_a_configuration_goes_with_the_model(http: Http, controlled: str) -> None:
    """Load with config: once unloaded, the model is the repository's again."""
    assert http.post(controlled + "/load", {"parameters": {"config": json.dumps(OVERRIDE)}}).status == 200
    unload(http, "controlled")
    assert http.post(controlled + "/load", {}).status == 200
    assert http.get("/v2/models/controlled/config").json["max_batch_size"] == 4


def test_load_with_a_configuration_over_grpc(grpc: Grpc, controlled: str) -> None:
    """RepositoryModelLoad: config is a string_param."""
    request = service_pb2.RepositoryModelLoadRequest(model_name="controlled")
    request.parameters["config"].string_param = json.dumps(OVERRIDE)
    grpc.call("RepositoryModelLoad", request)
    answer = grpc.call("ModelConfig", service_pb2.ModelConfigRequest(name="controlled"))
    assert answer.config.max_batch_size == 2


def test_load_a_model_from_the_request(http: Http, sent: str) -> None:
    """Load with config and file:<version>/<file>: a model that is in no repository."""
    assert http.post(f"/v2/repository/models/{sent}/load", {"parameters": file_parameters()}).status == 200
    assert http.get(f"/v2/models/{sent}").json["versions"] == ["7"]
    assert http.infer(sent, REQUEST).json["outputs"][0]["data"] == [1.0, 2.0]


def test_a_model_from_the_request_goes_with_its_unloading(http: Http, sent: str) -> None:
    """Load with file: the files are the request's; there is nothing to load later."""
    assert http.post(f"/v2/repository/models/{sent}/load", {"parameters": file_parameters()}).status == 200
    unload(http, sent)
    assert http.post(f"/v2/repository/models/{sent}/load", {}).error(*CANNOT_LOAD)


def test_load_a_model_from_the_request_over_grpc(grpc: Grpc, sent: str) -> None:
    """RepositoryModelLoad: a file is a bytes_param."""
    request = service_pb2.RepositoryModelLoadRequest(model_name=sent)
    request.parameters["config"].string_param = json.dumps(OVERRIDE)
    request.parameters["file:7/model.onnx"].bytes_param = identity_graph()
    grpc.call("RepositoryModelLoad", request)
    answer = grpc.infer(infer_request(sent, [("INPUT0", "FP32", [1, 2])], [bytes(8)]))
    assert answer.model_version == "7"


def test_files_of_the_request_replace_those_of_the_repository(http: Http, controlled: str) -> None:
    """Load with file: the repository's versions are not looked at."""
    assert http.post(controlled + "/load", {"parameters": file_parameters()}).status == 200
    assert http.get("/v2/models/controlled").json["versions"] == ["7"]
    assert http.post(controlled + "/load", {}).status == 200
    assert http.get("/v2/models/controlled").json["versions"] == ["1"]


def test_a_repaired_load_leaves_the_server_ready(http: Http, controlled: str) -> None:
    """Load: a failure is over when the model has been loaded after all."""
    unload(http, "controlled")
    parameters = file_parameters(b"no graph", version=1)
    assert http.post(controlled + "/load", {"parameters": parameters}).error(*CANNOT_LOAD)
    assert http.post(controlled + "/load", {}).status == 200
    assert http.get("/v2/health/ready").status == 200


def test_load_files_without_a_configuration(http: Http) -> None:
    """Load with file: config is mandatory."""
    parameters = file_parameters()
    del parameters["config"]
    assert http.post("/v2/repository/models/sent/load", {"parameters": parameters}).error(*CANNOT_LOAD)


def test_load_a_broken_file(http: Http, controlled: str) -> None:
    """Load: what fails is an error, and the index says why."""
    unload(http, "controlled")
    answer = http.post(controlled + "/load", {"parameters": file_parameters(b"no graph", version=1)})
    text = "load failed for model 'controlled': version 1 is at UNAVAILABLE state: "
    assert answer.error(*CANNOT_LOAD).startswith(text)
    assert {entry["state"] for entry in entries(http, "controlled")} == {"UNAVAILABLE"}
    assert any(entry["reason"] in answer.error(*CANNOT_LOAD) for entry in entries(http, "controlled"))
    assert http.get("/v2/health/live").status == 200


@pytest.mark.parametrize("path", ["../7/model.onnx", "7/../../model.onnx"])
def test_load_a_file_outside_the_model(http: Http, path: str) -> None:
    """Load with file: a file of the model, and no other."""
    parameters = file_parameters()
    parameters[f"file:{path}"] = parameters.pop("file:7/model.onnx")
    assert http.post("/v2/repository/models/sent/load", {"parameters": parameters}).error(*CANNOT_LOAD)


def test_load_an_unknown_model(http: Http, grpc: Grpc) -> None:
    """Load: a model that is in no repository."""
    text = "failed to load 'nope'"
    assert http.post("/v2/repository/models/nope/load", {}).error(*CANNOT_LOAD).startswith(text)
    with refused(*CANNOT_LOAD_GRPC, text=text):
        grpc.call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="nope"))


@pytest.mark.parametrize("config", ["{nothing", '{"input": [{"data_type": "TYPE_NOTHING"}]}', '{"nothing": 1}'])
def test_load_with_a_configuration_that_is_none(http: Http, controlled: str, config: str) -> None:
    """Load with config: a ModelConfig as JSON; a loaded model stays as it was."""
    assert http.post(controlled + "/load", {"parameters": {"config": config}}).error(*CANNOT_LOAD)
    assert http.get("/v2/models/controlled/ready").status == 200
    assert http.get("/v2/models/controlled/config").json["max_batch_size"] == 4


@pytest.mark.parametrize(
    "body",
    [b"{nothing", b'{"parameters": {"config": {}}}', b'{"parameters": {"mine": "x"}}'],
    ids=["no JSON", "config is no string", "unknown parameter"],
)
def test_malformed_load(http: Http, body: bytes) -> None:
    """Load: an object with known parameters."""
    assert http.post(CONTROLLED + "/load", body).error(*MALFORMED)


def test_malformed_load_over_grpc(grpc: Grpc) -> None:
    """RepositoryModelLoad: known parameters of their types."""
    request: Any = service_pb2.RepositoryModelLoadRequest(model_name="controlled")
    request.parameters["mine"].string_param = "x"
    with refused(StatusCode.INVALID_ARGUMENT, text="'mine'"):
        grpc.call("RepositoryModelLoad", request)
    request = service_pb2.RepositoryModelLoadRequest(model_name="controlled")
    request.parameters["config"].bool_param = True
    with refused(StatusCode.INVALID_ARGUMENT, text="'config'"):
        grpc.call("RepositoryModelLoad", request)


def test_load_from_a_named_repository(http: Http, grpc: Grpc) -> None:
    """repository_name: an optional feature, which must not be passed over in silence."""
    # Not implemented, or no repository of that name.
    assert http.post("/v2/repository/nope/models/controlled/load", {}).error(501, 400, 404)
    request = service_pb2.RepositoryModelLoadRequest(model_name="controlled", repository_name="nope")
    with refused(StatusCode.UNIMPLEMENTED, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND):
        grpc.call("RepositoryModelLoad", request)
