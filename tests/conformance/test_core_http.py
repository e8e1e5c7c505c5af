"""Open Inference Protocol, HTTP/REST: health, metadata, inference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.conformance.wire import Http, Json, model_path, rows, simple_inputs, simple_outputs, tensor

# The protocol says 4xx; 503 is what a load balancer takes for "not now".
NOT_READY = (400, 404, 503)

JSON_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 2**8 - 1],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP32": [0.1, -1e30],
    "FP64": [0.1, -1e300],
    "BYTES": ["", "é"],
}


def datatype_inputs() -> list[Json]:
    return [tensor(f"IN_{datatype}", datatype, [2], values) for datatype, values in JSON_VALUES.items()]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health(http: Http, path: str) -> None:
    """Server Live, Server Ready: 200 says yes."""
    assert http.get(path).status == 200


@pytest.mark.parametrize("version", ["", "1"])
def test_model_ready(http: Http, version: str) -> None:
    """Model Ready: 200 says yes, the version is optional."""
    assert http.get(model_path("simple", version) + "/ready").status == 200


@pytest.mark.parametrize(("model", "version"), [("nope", ""), ("simple", "9")])
def test_model_not_ready(http: Http, model: str, version: str) -> None:
    """Model Ready: a 4xx status says no."""
    assert http.get(model_path(model, version) + "/ready").error(*NOT_READY)


def test_server_metadata(http: Http) -> None:
    """Server Metadata: name, version and extensions, and nothing else."""
    metadata = http.get("/v2").json
    assert metadata.keys() == {"name", "version", "extensions"}
    assert all(isinstance(metadata[member], str) and metadata[member] for member in ("name", "version"))
    assert all(isinstance(extension, str) for extension in metadata["extensions"])


def test_model_metadata(http: Http) -> None:
    """Model Metadata: name, versions as strings, platform, and each tensor's name, datatype and shape."""
    metadata = http.get("/v2/models/simple").json
    assert metadata.pop("platform") == "onnxruntime_onnx"
    assert metadata == {
        "name": "simple",
        "versions": ["1"],
        "inputs": [{"name": name, "datatype": "INT32", "shape": [-1, 16]} for name in ("INPUT0", "INPUT1")],
        "outputs": [{"name": name, "datatype": "INT32", "shape": [-1, 16]} for name in ("OUTPUT0", "OUTPUT1")],
    }


def test_model_metadata_has_variable_dimensions_as_minus_one(http: Http) -> None:
    """Model Metadata: a variable-size dimension is -1, the batch dimension one of them."""
    assert http.get("/v2/models/dynamic").json["inputs"][0]["shape"] == [-1, -1, -1]


def test_model_metadata_of_an_unbatched_model_has_no_batch_dimension(http: Http) -> None:
    """Model Metadata, with max_batch_size 0: the shape is the configured one."""
    assert http.get("/v2/models/unbatched").json["inputs"][0]["shape"] == [2, 3]


def test_model_metadata_names_every_datatype(http: Http) -> None:
    """Tensor Data Types: the protocol's names."""
    inputs = http.get("/v2/models/datatypes").json["inputs"]
    assert {entry["name"]: entry["datatype"] for entry in inputs} == {f"IN_{name}": name for name in JSON_VALUES}


def test_model_metadata_lists_all_versions(http: Http) -> None:
    """Model Metadata: `versions` are all that can be asked for."""
    assert sorted(http.get("/v2/models/classifier").json["versions"]) == ["1", "2"]


def test_model_metadata_of_a_version(http: Http) -> None:
    """Model Metadata: the version is optional in the path."""
    assert "1" in http.get("/v2/models/classifier/versions/1").json["versions"]


@pytest.mark.parametrize("suffix", ["", "/infer"])
def test_unknown_model(http: Http, suffix: str) -> None:
    """Clients look for this text."""
    path = model_path("nope") + suffix
    answer = http.post(path, {"inputs": simple_inputs()}) if suffix else http.get(path)
    # Triton answered 400 before it answered 404.
    assert answer.error(404, 400) == "Request for unknown model: 'nope' is not found"


@pytest.mark.parametrize("suffix", ["", "/infer"])
def test_unknown_version(http: Http, suffix: str) -> None:
    """An unknown version is as unknown as an unknown model."""
    path = model_path("simple", "9") + suffix
    answer = http.post(path, {"inputs": simple_inputs()}) if suffix else http.get(path)
    assert answer.error(404, 400) == "Request for unknown model: 'simple' version 9 is not found"


def test_version_that_is_no_number(http: Http) -> None:
    """A version is a number: no such path exists."""
    assert http.get("/v2/models/simple/versions/one").error(404, 400)


@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/models/simple/nothing"])
def test_unknown_path(http: Http, path: str) -> None:
    assert http.get(path).error(404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v2"), ("POST", "/v2/health/live"), ("POST", "/v2/models/simple"), ("GET", "/v2/models/simple/infer")],
)
def test_wrong_method(http: Http, method: str, path: str) -> None:
    assert http.request(method, path).error(405)


def test_infer(http: Http) -> None:
    """Inference: model_name, model_version and outputs; without an id in the request there is none in the answer."""
    total, difference = simple_outputs()
    assert http.infer("simple", {"inputs": simple_inputs()}).json == {
        "model_name": "simple",
        "model_version": "1",
        "outputs": [
            tensor("OUTPUT0", "INT32", [1, 16], total.tolist()),
            tensor("OUTPUT1", "INT32", [1, 16], difference.tolist()),
        ],
    }


def test_infer_returns_the_id(http: Http) -> None:
    """Inference: `id` comes back as it was sent."""
    assert http.infer("simple", {"id": "é-7", "inputs": simple_inputs()}).json["id"] == "é-7"


def test_infer_a_batch(http: Http) -> None:
    """Inference: rows keep their order."""
    total, _ = simple_outputs(3)
    output = http.infer("simple", {"inputs": simple_inputs(3)}).json["outputs"][0]
    assert (output["shape"], output["data"]) == ([3, 16], total.tolist())


def test_infer_the_largest_batch(http: Http) -> None:
    """Inference: max_batch_size itself is allowed."""
    assert http.infer("simple", {"inputs": simple_inputs(8)}).json["outputs"][0]["shape"] == [8, 16]


def test_infer_takes_inputs_in_any_order(http: Http) -> None:
    """Inference: inputs are named."""
    _, difference = simple_outputs()
    answer = http.infer("simple", {"inputs": simple_inputs()[::-1]}).json
    assert {entry["name"]: entry["data"] for entry in answer["outputs"]}["OUTPUT1"] == difference.tolist()


def test_infer_returns_only_requested_outputs(http: Http) -> None:
    """Inference: `outputs` chooses."""
    answer = http.infer("simple", {"inputs": simple_inputs(), "outputs": [{"name": "OUTPUT1"}]}).json
    assert [entry["name"] for entry in answer["outputs"]] == ["OUTPUT1"]


def test_infer_with_an_empty_list_of_outputs_returns_all(http: Http) -> None:
    """Inference: no outputs named means all."""
    answer = http.infer("simple", {"inputs": simple_inputs(), "outputs": []}).json
    assert [entry["name"] for entry in answer["outputs"]] == ["OUTPUT0", "OUTPUT1"]


@pytest.mark.parametrize("columns", [16, 4, 1])
def test_infer_takes_nested_data(http: Http, columns: int) -> None:
    """Tensor Data: nested in arrays, or flattened in row-major order."""
    inputs = simple_inputs()
    inputs[0]["data"] = np.arange(16).reshape(-1, columns).tolist()
    total, _ = simple_outputs()
    assert http.infer("simple", {"inputs": inputs}).json["outputs"][0]["data"] == total.tolist()


@pytest.mark.parametrize("datatype", JSON_VALUES)
def test_infer_as_json(http: Http, datatype: str) -> None:
    """Tensor Data: every datatype but FP16 and BF16 has a JSON form; the extreme values survive."""
    request = {"inputs": datatype_inputs(), "outputs": [{"name": f"OUT_{datatype}"}]}
    (output,) = http.infer("datatypes", request).json["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == (f"OUT_{datatype}", datatype, [2])
    expected = JSON_VALUES[datatype]
    if datatype == "FP32":
        assert np.array(output["data"], np.float32).tolist() == np.array(expected, np.float32).tolist()
    else:
        assert output["data"] == expected
        assert [type(value) for value in output["data"]] == [type(value) for value in expected]


def test_infer_takes_whole_numbers_as_floats(http: Http) -> None:
    """Tensor Data: JSON does not tell 1 from 1.0."""
    request = {"inputs": [rows("INPUT0", [[1, 2]])]}
    assert http.infer("identity_fp32", request).json["outputs"][0]["data"] == [1.0, 2.0]


def test_infer_an_unbatched_model(http: Http) -> None:
    """Inference, with max_batch_size 0: shapes have no batch dimension."""
    request = {"inputs": [tensor("INPUT0", "FP32", [2, 3], range(6))]}
    output = http.infer("unbatched", request).json["outputs"][0]
    assert (output["shape"], output["data"]) == ([2, 3], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("shape", [[1, 3, 2], [2, 1, 4], [4, 2, 2]])
def test_infer_with_variable_dimensions(http: Http, shape: list[int]) -> None:
    """Inference: where the model has -1, the request decides."""
    request = {"inputs": [tensor("INPUT0", "FP32", shape, range(int(np.prod(shape))))]}
    assert http.infer("dynamic", request).json["outputs"][0]["shape"] == shape


def test_infer_a_tensor_without_elements(http: Http) -> None:
    """Inference: a dimension may be 0."""
    request = {"inputs": [tensor("INPUT0", "FP32", [1, 0], [])]}
    output = http.infer("identity_fp32", request).json["outputs"][0]
    assert (output["shape"], output["data"]) == ([1, 0], [])


@pytest.mark.parametrize(("version", "served"), [("", "2"), ("1", "1"), ("2", "2")])
def test_infer_a_version(http: Http, version: str, served: str) -> None:
    """Inference: the version in the path, or the newest; the answer says which."""
    answer = http.infer("classifier", {"inputs": [rows("SCORES", [[1, 2, 3, 4]])]}, version=version).json
    assert answer["model_version"] == served
    assert answer["outputs"][0]["data"] == [int(served) * score for score in (1, 2, 3, 4)]


def test_infer_ignores_members_that_it_does_not_know(http: Http) -> None:
    """Extensions add members and parameters that a server may not know."""
    request = {"inputs": simple_inputs(), "extra": 1, "parameters": {"mine": "x", "count": 1, "flag": True}}
    assert http.infer("simple", request).json["model_name"] == "simple"


def test_infer_whatever_the_content_type(http: Http) -> None:
    """tritonclient sends no Content-Type, curl a form's: the body is JSON all the same."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.infer("simple", {"inputs": simple_inputs()}, headers).status == 200


def test_infer_with_a_query_string(http: Http) -> None:
    """tritonclient can add query parameters to every request."""
    assert http.post("/v2/models/simple/infer?test=1", {"inputs": simple_inputs()}).status == 200


def test_infer_with_a_chunked_body(http: Http) -> None:
    """HTTP/1.1: a body need not come with its length."""
    body = json.dumps({"inputs": simple_inputs()}).encode()
    connection = http.connect()
    answer = http.exchange(
        connection,
        "POST",
        "/v2/models/simple/infer",
        iter([body[:50], body[50:]]),
        {"Transfer-Encoding": "chunked"},
        chunked=True,
    )
    connection.close()
    assert answer.json["model_name"] == "simple"


def test_a_connection_serves_many_requests(http: Http) -> None:
    """HTTP/1.1: connections stay open, after an error too."""
    connection = http.connect()
    paths = ("/v2", "/v2/models/nope", "/v2", "/v2/health/live")
    statuses = []
    for path in paths:
        statuses.append(http.exchange(connection, "GET", path).status)
        assert connection.sock is not None, "the server closed the connection"
    connection.close()
    assert statuses[0] == statuses[2] == statuses[3] == 200


def test_infer_a_large_tensor(http: Http) -> None:
    """A tensor of some megabytes is nothing special."""
    values = np.arange(2**18) % 7
    request = {"inputs": [tensor("INPUT0", "FP32", [1, len(values)], values.tolist())]}
    assert http.infer("identity_fp32", request).json["outputs"][0]["data"] == values.tolist()
