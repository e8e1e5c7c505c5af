"""Open Inference Protocol: requests that a server must refuse, with an error's status and {"error": "..."}."""

from __future__ import annotations

import json
from typing import Any

import pytest
from grpc import StatusCode

from tests.conformance.wire import (
    MALFORMED,
    Grpc,
    Http,
    Json,
    infer_request,
    refused,
    rows,
    simple_inputs,
    simple_request,
    tensor,
)

ASCENDING, ONES = simple_inputs()


def without(entry: Json, member: str) -> Json:
    return {name: value for name, value in entry.items() if name != member}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{nothing", id="no JSON"),
        pytest.param(b'{"inputs": [', id="cut off"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"7", id="a number"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", id="nested too deeply"),
        pytest.param(b"{}", id="no inputs"),
    ],
)
def test_body_that_is_no_request(http: Http, body: bytes) -> None:
    """Inference: the body is a JSON object with the member `inputs`."""
    assert http.infer("simple", body).error(*MALFORMED)


@pytest.mark.parametrize("body", [b"{nothing", b"{}", b'{"inputs": {}}', b'{"inputs": [{}]}'])
def test_malformed_request_is_the_clients_fault(http: Http, body: bytes) -> None:
    """HTTP: 5xx is for what fails in the server; proxies and clients send such a request again."""
    assert http.infer("simple", body).error(400)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"inputs": {}}, id="inputs is no array"),
        pytest.param({"inputs": [1, 2]}, id="an input is no object"),
        pytest.param({"inputs": [ASCENDING, ONES], "id": 7}, id="id is no string"),
        pytest.param({"inputs": [ASCENDING, ONES], "outputs": {}}, id="outputs is no array"),
        pytest.param({"inputs": [ASCENDING, ONES], "outputs": [{}]}, id="an output has no name"),
        pytest.param({"inputs": [ASCENDING, ONES], "parameters": []}, id="parameters is no object"),
        pytest.param({"inputs": [ASCENDING, ONES], "parameters": {"mine": {}}}, id="a parameter is an object"),
        pytest.param({"inputs": [without(ASCENDING, "name"), ONES]}, id="no name"),
        pytest.param({"inputs": [without(ASCENDING, "datatype"), ONES]}, id="no datatype"),
        pytest.param({"inputs": [without(ASCENDING, "shape"), ONES]}, id="no shape"),
        pytest.param({"inputs": [without(ASCENDING, "data"), ONES]}, id="no data"),
        pytest.param({"inputs": [ASCENDING | {"name": 7}, ONES]}, id="name is no string"),
        pytest.param({"inputs": [ASCENDING | {"datatype": 7}, ONES]}, id="datatype is no string"),
        pytest.param({"inputs": [ASCENDING | {"shape": 16}, ONES]}, id="shape is no array"),
        pytest.param({"inputs": [ASCENDING | {"shape": ["1", "16"]}, ONES]}, id="shape has strings"),
        pytest.param({"inputs": [ASCENDING | {"shape": [1.5, 16]}, ONES]}, id="shape has fractions"),
        pytest.param({"inputs": [ASCENDING | {"shape": [-1, 16]}, ONES]}, id="shape is negative"),
        pytest.param({"inputs": [ASCENDING | {"shape": [-1, -16]}, ONES]}, id="shape is twice negative"),
        pytest.param({"inputs": [ASCENDING | {"shape": [2**62, 2**62]}, ONES]}, id="shape overflows"),
        pytest.param({"inputs": [ASCENDING | {"shape": [2**70, 16]}, ONES]}, id="shape is beyond 64 bits"),
        pytest.param({"inputs": [ASCENDING | {"data": list(range(15))}, ONES]}, id="too little data"),
        pytest.param({"inputs": [ASCENDING | {"data": list(range(17))}, ONES]}, id="too much data"),
        pytest.param({"inputs": [ASCENDING | {"data": 7}, ONES]}, id="data is no array"),
        pytest.param({"inputs": [ASCENDING | {"data": ["1"] * 16}, ONES]}, id="strings for integers"),
        pytest.param({"inputs": [ASCENDING | {"data": [1.5] * 16}, ONES]}, id="fractions for integers"),
        pytest.param({"inputs": [ASCENDING | {"data": [None] * 16}, ONES]}, id="null for integers"),
    ],
)
def test_malformed_request(http: Http, request_: Json) -> None:
    """Inference: each member of the request has its type."""
    assert http.infer("simple", request_).error(*MALFORMED)


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        pytest.param("identity_uint8", tensor("INPUT0", "UINT8", [1, 2], [256, 0]), id="UINT8 above"),
        pytest.param("lookup", tensor("INDEX", "INT64", [1, 1], [2**63]), id="INT64 above"),
        pytest.param("identity_uint8", tensor("INPUT0", "UINT8", [1, 2], [-1, 0]), id="UINT8 below"),
        pytest.param("identity_fp32", tensor("INPUT0", "FP32", [1, 2], ["1", "2"]), id="FP32 from strings"),
        pytest.param("identity_fp32", tensor("INPUT0", "FP32", [1, 2], [True, False]), id="FP32 from booleans"),
        pytest.param("identity_bytes", tensor("INPUT0", "BYTES", [1, 1], [7]), id="BYTES from a number"),
    ],
)
def test_data_that_the_datatype_cannot_hold(http: Http, model: str, entry: Json) -> None:
    """Tensor Data: values are of the datatype."""
    assert http.infer(model, {"inputs": [entry]}).error(*MALFORMED)


def test_fp16_as_json(http: Http) -> None:
    """Tensor Data: FP16 has no JSON form."""
    text = http.infer("identity_fp16", {"inputs": [tensor("INPUT0", "FP16", [1, 2], [1.5, 2])]}).error(400)
    assert "FP16 data via JSON is not supported" in text


REFUSALS = [
    pytest.param({"inputs": [ASCENDING]}, "missing required input(s) ['INPUT1']", id="missing input"),
    pytest.param({"inputs": []}, "missing required input(s) ['INPUT0','INPUT1']", id="no input at all"),
    pytest.param(
        {"inputs": [ASCENDING, ONES | {"name": "INPUT9"}]},
        "unexpected inference input 'INPUT9' for model 'simple'",
        id="unknown input",
    ),
    pytest.param(
        {"inputs": [ASCENDING, ONES, ONES | {"name": "INPUT9"}]}, "expected 2 inputs but got 3 inputs", id="extra input"
    ),
    pytest.param(
        {"inputs": [ASCENDING, ASCENDING, ONES]}, "input 'INPUT0' already exists in request", id="duplicate input"
    ),
    pytest.param(
        {"inputs": [ASCENDING, ONES], "outputs": [{"name": "OUTPUT9"}]},
        "unexpected inference output 'OUTPUT9' for model 'simple'",
        id="unknown output",
    ),
    pytest.param(
        {"inputs": [ASCENDING | {"datatype": "UINT32"}, ONES]},
        "inference input 'INPUT0' data-type is 'UINT32', but model 'simple' expects 'INT32'",
        id="wrong datatype",
    ),
    pytest.param({"inputs": [ASCENDING | {"datatype": "FLOAT"}, ONES]}, "INPUT0", id="unknown datatype"),
    pytest.param(
        {"inputs": [tensor("INPUT0", "INT32", [1, 8], range(8)), ONES]},
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,8]",
        id="wrong shape",
    ),
    pytest.param(
        {"inputs": [ASCENDING | {"shape": [1, 1, 16]}, ONES]},
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,1,16]",
        id="too many dimensions",
    ),
    pytest.param({"inputs": [ASCENDING | {"shape": [16]}, ONES]}, "'INPUT0'", id="no batch dimension"),
    pytest.param(
        {"inputs": [simple_inputs(2)[0], ONES]},
        "input 'INPUT0' batch size does not match other inputs for 'simple'",
        id="batches differ",
    ),
    pytest.param(
        {"inputs": simple_inputs(9)},
        "inference request batch-size must be <= 8 for 'simple'",
        id="batch above the maximum",
    ),
    pytest.param(
        {"inputs": [tensor(name, "INT32", [0, 16], []) for name in ("INPUT0", "INPUT1")]}, "", id="batch of none"
    ),
]


@pytest.mark.parametrize(("request_", "text"), REFUSALS)
def test_request_that_the_model_refuses(http: Http, request_: Json, text: str) -> None:
    """Inference: inputs and outputs are the model's."""
    assert text in http.infer("simple", request_).error(400)


@pytest.mark.parametrize(("request_", "text"), REFUSALS)
def test_request_that_the_model_refuses_over_grpc(grpc: Grpc, request_: Json, text: str) -> None:
    """ModelInfer: inputs and outputs are the model's."""
    inputs = [(entry["name"], entry["datatype"], entry["shape"]) for entry in request_["inputs"]]
    outputs = [entry["name"] for entry in request_.get("outputs", [])]
    raw = [b"".join(value.to_bytes(4, "little") for value in entry["data"]) for entry in request_["inputs"]]
    with refused(StatusCode.INVALID_ARGUMENT, text=text):
        grpc.infer(infer_request("simple", inputs, raw, outputs))


@pytest.mark.parametrize("shape", [[-1, 16], [-1, -16], [2**62, 2**62], [2**63 - 1, 16]])
def test_shape_that_cannot_be_over_grpc(grpc: Grpc, shape: list[int]) -> None:
    """ModelInfer: a shape is positive and its product fits."""
    request = simple_request()
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend(shape)
    with refused(StatusCode.INVALID_ARGUMENT):
        grpc.infer(request)


def test_unbatched_model_refuses_a_batch_dimension(http: Http) -> None:
    """Inference, with max_batch_size 0: the shape is the model's."""
    text = http.infer("unbatched", {"inputs": [tensor("INPUT0", "FP32", [1, 2, 3], range(6))]}).error(400)
    assert "unexpected shape for input 'INPUT0' for model 'unbatched'. Expected [2,3], got [1,2,3]" in text


def test_duplicate_output(http: Http) -> None:
    """Inference: an output is asked for once. Triton refuses this since 25.01, and before that it answers once."""
    answer = http.infer("simple", {"inputs": [ASCENDING, ONES], "outputs": [{"name": "OUTPUT0"}] * 2})
    if answer.status == 200:
        assert [output["name"] for output in answer.json["outputs"]] == ["OUTPUT0"]
    else:
        assert "OUTPUT0" in answer.error(400)


def test_error_names_the_request(http: Http) -> None:
    """Triton puts the request's id before what is wrong with it."""
    request = {"id": "mine", "inputs": [tensor("INPUT0", "INT32", [1, 8], range(8)), ONES]}
    assert http.infer("simple", request).error(400).startswith("[request id: mine] ")


def test_failure_of_the_model(http: Http) -> None:
    """Inference: what fails in the server is the server's, 5xx."""
    assert http.infer("lookup", {"inputs": [tensor("INDEX", "INT64", [1, 1], [7])]}).error(500)


def test_failure_of_the_model_over_grpc(grpc: Grpc) -> None:
    """ModelInfer: what fails in the server is INTERNAL."""
    request = infer_request("lookup", [("INDEX", "INT64", [1, 1])], [(7).to_bytes(8, "little")])
    with refused(StatusCode.INTERNAL):
        grpc.infer(request)


def test_failure_of_the_model_leaves_it_working(http: Http) -> None:
    """A failed inference is that request's alone."""
    answers: list[Any] = [
        http.infer("lookup", {"inputs": [tensor("INDEX", "INT64", [1, 1], [index])]}) for index in (7, 2)
    ]
    assert [answer.status for answer in answers] == [500, 200]
    assert answers[1].json["outputs"][0]["data"] == [30.0]


def test_error_is_json_whatever_the_path(http: Http) -> None:
    """Clients decode every error."""
    answers = [
        http.get("/v2/nothing"),
        http.post("/v2/models/nope/infer", json.dumps({"inputs": [rows("INPUT0", [[1.0]])]}).encode()),
        http.request("PUT", "/v2/models/simple/infer", b"{}"),
    ]
    assert all(answer.error(400, 404, 405) for answer in answers)
