"""extension_classification: an output as "value:index:label" of its largest elements."""

from __future__ import annotations

import numpy as np
import pytest
from grpc import StatusCode

from tests.conformance.wire import (
    MALFORMED,
    Grpc,
    Http,
    Json,
    binary_tensor,
    bytes_elements,
    infer_request,
    refused,
    rows,
    simple_inputs,
    tensor,
)

pytestmark = pytest.mark.extension("classification")

SCORES = [1, 4, 2, 3.25]


def classify(http: Http, count: Json, scores: list[list[float]] | None = None, **parameters: Json) -> Json:
    """The output of the classifier's version 1, whose logits are the scores."""
    output = {"name": "LOGITS", "parameters": {"classification": count, **parameters}}
    request = {"inputs": [rows("SCORES", scores or [SCORES])], "outputs": [output]}
    return http.infer("classifier", request, version="1").json["outputs"][0]


def test_top_classes(http: Http) -> None:
    """classification: the K largest, in descending order, as BYTES, of shape [batch, K]."""
    assert classify(http, 2) == tensor("LOGITS", "BYTES", [1, 2], ["4.000000:1:tiger", "3.250000:3:puma"])


def test_top_classes_of_a_batch(http: Http) -> None:
    """classification: each item of the batch for itself."""
    output = classify(http, 1, [SCORES, [5, 0, 0, 0], [0, 0, -0.5, -1e-7]])
    assert (output["shape"], output["data"][:2]) == ([3, 1], ["4.000000:1:tiger", "5.000000:0:tabby"])


def test_more_classes_than_there_are(http: Http) -> None:
    """classification: K may be more than the elements."""
    output = classify(http, 9)
    assert (output["shape"], len(output["data"])) == ([1, 4], 4)


def test_value_has_six_decimals(http: Http) -> None:
    """classification: values as C++'s std::to_string writes them."""
    data = classify(http, 4, [[1e10, -1e-7, 0.123456789, 3.5]])["data"]
    assert data == ["10000000000.000000:0:tabby", "3.500000:3:puma", "0.123457:2:lynx", "-0.000000:1:tiger"]


def test_integer_output_without_labels(http: Http) -> None:
    """classification: integers as integers; without a label file there is no second colon."""
    outputs = [{"name": "OUTPUT0", "parameters": {"classification": 2}}, {"name": "OUTPUT1"}]
    answer = http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).json["outputs"]
    assert answer[0] == tensor("OUTPUT0", "BYTES", [1, 2], ["16:15", "15:14"])
    assert answer[1]["datatype"] == "INT32"


def test_classes_of_an_unbatched_model(http: Http) -> None:
    """classification, with max_batch_size 0: shape [K], over all elements."""
    request = {
        "inputs": [tensor("INPUT0", "FP32", [2, 3], [1, 2, 3, 4, 9, 6])],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}],
    }
    output = http.infer("unbatched", request).json["outputs"][0]
    assert output == tensor("OUTPUT0", "BYTES", [2], ["9.000000:4", "6.000000:5"])


def test_classes_of_an_output_with_dimensions(http: Http) -> None:
    """classification: an item's elements are numbered in row-major order."""
    request = {
        "inputs": [tensor("INPUT0", "FP32", [1, 3, 2], [1, 2, 3, 4, 9, 6])],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}],
    }
    assert http.infer("dynamic", request).json["outputs"][0]["data"] == ["9.000000:4", "6.000000:5"]


@pytest.mark.extension("binary_tensor_data")
def test_binary_classes(http: Http) -> None:
    """classification with binary_data: elements as BYTES are."""
    parameters = {"classification": 2, "binary_data": True}
    request = {"inputs": [rows("SCORES", [SCORES])], "outputs": [{"name": "LOGITS", "parameters": parameters}]}
    answer, tail = http.infer("classifier", request, version="1").binary()
    assert answer["outputs"] == [binary_tensor("LOGITS", "BYTES", [1, 2], len(tail))]
    assert bytes_elements(tail) == [b"4.000000:1:tiger", b"3.250000:3:puma"]


def test_classes_over_grpc(grpc: Grpc) -> None:
    """classification: over gRPC an int64_param of the requested output."""
    scores = np.array([SCORES], "<f4").tobytes()
    request = infer_request("classifier", [("SCORES", "FP32", [1, 4])], [scores], ["LOGITS"], model_version="1")
    request.outputs[0].parameters["classification"].int64_param = 2
    answer = grpc.infer(request)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
    assert bytes_elements(answer.raw_output_contents[0]) == [b"4.000000:1:tiger", b"3.250000:3:puma"]


@pytest.mark.parametrize("count", [-1, "2", 1.5])
def test_count_that_is_no_number_is_refused(http: Http, count: Json) -> None:
    """classification: an unsigned integer."""
    output = {"name": "LOGITS", "parameters": {"classification": count}}
    assert http.infer("classifier", {"inputs": [rows("SCORES", [SCORES])], "outputs": [output]}).error(*MALFORMED)


@pytest.mark.parametrize("count", [0, -1])
def test_count_below_one_is_refused_over_grpc(grpc: Grpc, count: int) -> None:
    """classification: at least one class."""
    request = infer_request("classifier", [("SCORES", "FP32", [1, 4])], [bytes(16)], ["LOGITS"])
    request.outputs[0].parameters["classification"].int64_param = count
    with refused(StatusCode.INVALID_ARGUMENT, text="classification"):
        grpc.infer(request)


def test_classes_of_fp16_are_refused(http: Http) -> None:
    """classification: only of datatypes that have an order here."""
    request = {
        "inputs": [binary_tensor("INPUT0", "FP16", [1, 2], 4)],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}],
    }
    text = http.infer_binary("identity_fp16", request, [bytes(4)]).error(400)
    assert text == "class result not available for output due to unsupported type 'FP16'"


def test_classes_of_bytes_are_refused(http: Http) -> None:
    """classification: only of datatypes that have an order here."""
    request = {
        "inputs": [tensor("INPUT0", "BYTES", [1, 1], ["a"])],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}],
    }
    text = http.infer("identity_bytes", request).error(400)
    assert text == "class result not available for output due to unsupported type 'BYTES'"
