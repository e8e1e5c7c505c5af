"""Open Inference Protocol, gRPC: health, metadata, inference."""

from __future__ import annotations

from typing import Any

import grpc as grpc_library
import numpy as np
import pytest
from google.protobuf import json_format
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from tests.conformance.test_core_http import JSON_VALUES
from tests.conformance.wire import (
    NUMPY,
    SIMPLE_RAW,
    TIMEOUT_S,
    Grpc,
    Http,
    bytes_elements,
    fields,
    infer_request,
    refused,
    simple_outputs,
    simple_request,
)

CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def test_server_live(grpc: Grpc) -> None:
    """ServerLive."""
    assert grpc.call("ServerLive", service_pb2.ServerLiveRequest()).live


def test_server_ready(grpc: Grpc) -> None:
    """ServerReady."""
    assert grpc.call("ServerReady", service_pb2.ServerReadyRequest()).ready


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [("simple", "", True), ("simple", "1", True), ("simple", "9", False), ("nope", "", False)],
)
def test_model_ready(grpc: Grpc, model: str, version: str, ready: bool) -> None:
    """ModelReady: what is unknown is not ready, which is an answer and no error."""
    assert grpc.call("ModelReady", service_pb2.ModelReadyRequest(name=model, version=version)).ready is ready


def test_health_check(grpc: Grpc) -> None:
    """grpc.health.v1, which load balancers and Kubernetes ask."""
    stub = health_pb2_grpc.HealthStub(grpc.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_server_metadata_is_that_of_http(grpc: Grpc, http: Http) -> None:
    """ServerMetadata: name, version, extensions."""
    assert fields(grpc.call("ServerMetadata", service_pb2.ServerMetadataRequest())) == http.get("/v2").json


@pytest.mark.parametrize("model", ["simple", "classifier", "dynamic", "unbatched", "datatypes"])
def test_model_metadata_is_that_of_http(grpc: Grpc, http: Http, model: str) -> None:
    """ModelMetadata: the same in both protocols."""
    answer = grpc.call("ModelMetadata", service_pb2.ModelMetadataRequest(name=model))
    assert answer == json_format.ParseDict(http.get(f"/v2/models/{model}").json, type(answer)())


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nope", "", "Request for unknown model: 'nope' is not found"),
        ("simple", "9", "Request for unknown model: 'simple' version 9 is not found"),
    ],
)
@pytest.mark.parametrize("method", ["ModelMetadata", "ModelInfer"])
def test_unknown_model(grpc: Grpc, method: str, model: str, version: str, text: str) -> None:
    """Clients look for this text."""
    request: Any = service_pb2.ModelMetadataRequest(name=model, version=version)
    if method == "ModelInfer":
        request = simple_request(model_version=version)
        request.model_name = model
    # Triton answered INVALID_ARGUMENT before it answered NOT_FOUND.
    with refused(StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT, text=text):
        grpc.call(method, request)


def test_version_that_is_no_number(grpc: Grpc) -> None:
    """A version is a number."""
    with refused(StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND):
        grpc.infer(simple_request(model_version="one"))


def test_infer(grpc: Grpc) -> None:
    """ModelInfer: outputs in raw_output_contents, in the order of `outputs`."""
    answer = grpc.infer(simple_request(id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("simple", "1", "7")
    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("OUTPUT0", "INT32", [1, 16]),
        ("OUTPUT1", "INT32", [1, 16]),
    ]
    assert list(answer.raw_output_contents) == [values.tobytes() for values in simple_outputs()]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_infer_without_an_id(grpc: Grpc) -> None:
    """ModelInfer: no id, none back."""
    assert grpc.infer(simple_request()).id == ""


def test_infer_returns_only_requested_outputs(grpc: Grpc) -> None:
    """ModelInfer: `outputs` chooses."""
    answer = grpc.infer(simple_request(["OUTPUT1"]))
    assert [output.name for output in answer.outputs] == ["OUTPUT1"]
    assert list(answer.raw_output_contents) == [simple_outputs()[1].tobytes()]


def test_infer_a_batch(grpc: Grpc) -> None:
    """ModelInfer: rows keep their order."""
    values = np.arange(12, dtype="<f4").reshape(3, 4)
    request = infer_request("identity_fp32", [("INPUT0", "FP32", [3, 4])], [values.tobytes()])
    answer = grpc.infer(request)
    assert list(answer.outputs[0].shape) == [3, 4]
    assert answer.raw_output_contents[0] == values.tobytes()


@pytest.mark.parametrize(("version", "served"), [("", "2"), ("1", "1"), ("2", "2")])
def test_infer_a_version(grpc: Grpc, version: str, served: str) -> None:
    """ModelInfer: the version asked for, or the newest."""
    scores = np.ones((1, 4), "<f4")
    request = infer_request("classifier", [("SCORES", "FP32", [1, 4])], [scores.tobytes()], model_version=version)
    answer = grpc.infer(request)
    assert answer.model_version == served
    assert answer.raw_output_contents[0] == (scores * int(served)).tobytes()


@pytest.mark.parametrize("datatype", CONTENTS)
def test_infer_typed_contents(grpc: Grpc, datatype: str) -> None:
    """InferTensorContents: each datatype's own field."""
    request = infer_request("datatypes", [(f"IN_{name}", name, [2]) for name in CONTENTS], outputs=[f"OUT_{datatype}"])
    for tensor in request.inputs:
        values = JSON_VALUES[tensor.datatype]
        encoded = [value.encode() for value in values] if tensor.datatype == "BYTES" else values
        getattr(tensor.contents, CONTENTS[tensor.datatype]).extend(encoded)
    (output,) = grpc.infer(request).raw_output_contents
    if datatype == "BYTES":
        assert bytes_elements(output) == [value.encode() for value in JSON_VALUES["BYTES"]]
    else:
        assert output == np.array(JSON_VALUES[datatype], NUMPY[datatype]).tobytes()


def test_infer_fp16(grpc: Grpc) -> None:
    """FP16 travels as raw contents."""
    values = np.array([[1.5, -2]], "<f2").tobytes()
    answer = grpc.infer(infer_request("identity_fp16", [("INPUT0", "FP16", [1, 2])], [values]))
    assert answer.outputs[0].datatype == "FP16"
    assert answer.raw_output_contents[0] == values


def test_infer_a_message_of_many_megabytes(grpc: Grpc) -> None:
    """Clients send and take messages far above gRPC's default of 4 MiB."""
    values = np.arange(2**21, dtype="<f4")
    answer = grpc.infer(infer_request("identity_fp32", [("INPUT0", "FP32", [1, len(values)])], [values.tobytes()]))
    assert answer.raw_output_contents[0] == values.tobytes()


def test_mixed_contents_are_refused(grpc: Grpc) -> None:
    """ModelInferRequest: with raw_input_contents no input has `contents`."""
    request = simple_request()
    request.inputs[0].contents.int_contents.extend(range(16))
    text = "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'"
    with refused(StatusCode.INVALID_ARGUMENT, text=text):
        grpc.infer(request)


def test_raw_contents_for_some_inputs_are_refused(grpc: Grpc) -> None:
    """ModelInferRequest: raw_input_contents are for all inputs."""
    request = simple_request()
    del request.raw_input_contents[1]
    with refused(StatusCode.INVALID_ARGUMENT, text="'INPUT1' for model 'simple'"):
        grpc.infer(request)


def test_more_raw_contents_than_inputs_are_refused(grpc: Grpc) -> None:
    """ModelInferRequest: raw_input_contents are one for each input."""
    request = simple_request()
    request.raw_input_contents.append(SIMPLE_RAW[0])
    with refused(StatusCode.INVALID_ARGUMENT):
        grpc.infer(request)


def test_input_without_data_is_refused(grpc: Grpc) -> None:
    """ModelInferRequest: an input has contents in one place or the other."""
    request = simple_request()
    del request.raw_input_contents[:]
    with refused(StatusCode.INVALID_ARGUMENT, text="'INPUT0' for model 'simple'"):
        grpc.infer(request)


@pytest.mark.parametrize("size", [60, 68, 0])
def test_raw_contents_of_the_wrong_size_are_refused(grpc: Grpc, size: int) -> None:
    """raw_input_contents: as many bytes as shape and datatype say."""
    request = simple_request()
    request.raw_input_contents[1] = bytes(size)
    with refused(StatusCode.INVALID_ARGUMENT, text="INPUT1"):
        grpc.infer(request)


@pytest.mark.parametrize("count", [15, 17])
def test_typed_contents_of_the_wrong_size_are_refused(grpc: Grpc, count: int) -> None:
    """InferTensorContents: as many elements as the shape says."""
    request = simple_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.extend(range(count))
    request.inputs[1].contents.int_contents.extend(range(16))
    with refused(StatusCode.INVALID_ARGUMENT, text="INPUT0"):
        grpc.infer(request)


def test_typed_contents_of_another_datatype_are_refused(grpc: Grpc) -> None:
    """InferTensorContents: the field that is the datatype's."""
    request = simple_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1.0] * 16)
    request.inputs[1].contents.int_contents.extend(range(16))
    with refused(StatusCode.INVALID_ARGUMENT, text="INPUT0"):
        grpc.infer(request)


def test_typed_contents_in_two_fields_are_refused(grpc: Grpc) -> None:
    """InferTensorContents: one field only."""
    request = simple_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.extend(range(16))
    request.inputs[0].contents.fp32_contents.extend([1.0] * 16)
    request.inputs[1].contents.int_contents.extend(range(16))
    with refused(StatusCode.INVALID_ARGUMENT, text="INPUT0"):
        grpc.infer(request)


def test_typed_fp16_is_refused(grpc: Grpc) -> None:
    """InferTensorContents: there is no field for FP16."""
    request = infer_request("identity_fp16", [("INPUT0", "FP16", [1, 2])])
    request.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    with refused(StatusCode.INVALID_ARGUMENT):
        grpc.infer(request)


@pytest.mark.parametrize("compression", [grpc_library.Compression.Gzip, grpc_library.Compression.Deflate])
def test_compressed_message(grpc: Grpc, compression: grpc_library.Compression) -> None:
    """gRPC's own compression, a call at a time."""
    answer = grpc.infer(simple_request(), compression=compression)
    assert answer.raw_output_contents[0] == simple_outputs()[0].tobytes()
