"""extension_binary_data: tensors as bytes behind the JSON."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.conformance.wire import (
    LENGTH_HEADER,
    MALFORMED,
    NUMPY,
    SIMPLE_RAW,
    Http,
    Json,
    binary_tensor,
    bytes_elements,
    bytes_tensor,
    simple_inputs,
    simple_outputs,
    tensor,
)

pytestmark = pytest.mark.extension("binary_tensor_data")

BINARY_OUTPUT = {"binary_data_output": True}
EXTREMES: dict[str, list[float]] = {
    "BOOL": [1, 0],
    "UINT8": [0, 2**8 - 1],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP32": [float("nan"), float("-inf")],
    "FP64": [float("nan"), float("inf")],
}


def binary_inputs(size0: int = 64, size1: int = 64) -> list[Json]:
    return [binary_tensor("INPUT0", "INT32", [1, 16], size0), binary_tensor("INPUT1", "INT32", [1, 16], size1)]


def test_binary_inputs(http: Http) -> None:
    """Tensors follow the JSON in the order of the inputs; the outputs are JSON unless asked for otherwise."""
    answer = http.infer_binary("simple", {"inputs": binary_inputs()}, SIMPLE_RAW).json
    assert [output["data"] for output in answer["outputs"]] == [values.tolist() for values in simple_outputs()]


def test_a_binary_input_among_others(http: Http) -> None:
    """Each input by itself is JSON or binary."""
    inputs = [binary_inputs()[0], simple_inputs()[1]]
    answer = http.infer_binary("simple", {"inputs": inputs}, SIMPLE_RAW[:1]).json
    assert answer["outputs"][0]["data"] == simple_outputs()[0].tolist()


def test_binary_outputs_for_the_whole_request(http: Http) -> None:
    """binary_data_output: every output follows the JSON, which has its size and no data."""
    request = {"inputs": simple_inputs(), "parameters": BINARY_OUTPUT}
    answer, tail = http.infer("simple", request).binary()
    assert answer == {
        "model_name": "simple",
        "model_version": "1",
        "outputs": [
            binary_tensor("OUTPUT0", "INT32", [1, 16], 64),
            binary_tensor("OUTPUT1", "INT32", [1, 16], 64),
        ],
    }
    assert tail == b"".join(values.tobytes() for values in simple_outputs())


def test_binary_output_of_a_single_output(http: Http) -> None:
    """binary_data: one output follows the JSON, the other is in it."""
    outputs = [{"name": "OUTPUT0"}, {"name": "OUTPUT1", "parameters": {"binary_data": True}}]
    answer, tail = http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).binary()
    data = {output["name"]: output.get("data") for output in answer["outputs"]}
    total, difference = simple_outputs()
    assert data == {"OUTPUT0": total.tolist(), "OUTPUT1": None}
    assert tail == difference.tobytes()


def test_listed_outputs_are_as_the_whole_request_says(http: Http) -> None:
    """binary_data_output: the default of the outputs that are listed, too."""
    request = {"inputs": simple_inputs(), "outputs": [{"name": "OUTPUT1"}], "parameters": BINARY_OUTPUT}
    assert http.infer("simple", request).binary()[1] == simple_outputs()[1].tobytes()


def test_an_output_overrides_the_whole_request(http: Http) -> None:
    """binary_data: false wins over binary_data_output: true, for that output."""
    outputs = [{"name": "OUTPUT0", "parameters": {"binary_data": False}}]
    request = {"inputs": simple_inputs(), "outputs": outputs, "parameters": BINARY_OUTPUT}
    assert http.infer("simple", request).json["outputs"][0]["data"] == simple_outputs()[0].tolist()


def test_an_output_overrides_the_whole_request_the_other_way(http: Http) -> None:
    """binary_data: true wins over binary_data_output: false."""
    outputs = [{"name": "OUTPUT0", "parameters": {"binary_data": True}}]
    request = {"inputs": simple_inputs(), "outputs": outputs, "parameters": {"binary_data_output": False}}
    _, tail = http.infer("simple", request).binary()
    assert tail == simple_outputs()[0].tobytes()


def test_answer_without_binary_outputs_has_no_header(http: Http) -> None:
    """Inference-Header-Content-Length: only where bytes follow the JSON."""
    answer = http.infer_binary("simple", {"inputs": binary_inputs()}, SIMPLE_RAW)
    assert answer.json
    assert LENGTH_HEADER.lower() not in answer.headers


def test_header_names_are_case_insensitive(http: Http) -> None:
    """HTTP/1.1: a proxy may write the header in lower case."""
    head = json.dumps({"inputs": binary_inputs()}).encode()
    body = head + b"".join(SIMPLE_RAW)
    assert http.infer("simple", body, {LENGTH_HEADER.lower(): str(len(head))}).status == 200


@pytest.mark.parametrize("datatype", EXTREMES)
def test_binary_datatype(http: Http, datatype: str) -> None:
    """Every datatype, little-endian; BOOL is a byte."""
    tensors = {name: np.array(values, NUMPY[name]).tobytes() for name, values in EXTREMES.items()}
    tensors["BYTES"] = bytes_tensor([b"", "é".encode()])
    request = {
        "inputs": [binary_tensor(f"IN_{name}", name, [2], len(data)) for name, data in tensors.items()],
        "outputs": [{"name": f"OUT_{datatype}", "parameters": {"binary_data": True}}],
    }
    answer, tail = http.infer_binary("datatypes", request, tensors.values()).binary()
    assert answer["outputs"] == [binary_tensor(f"OUT_{datatype}", datatype, [2], len(tail))]
    assert tail == tensors[datatype]


def test_binary_fp16(http: Http) -> None:
    """FP16 is binary both ways."""
    values = np.array([[1.5, -2]], "<f2").tobytes()
    request = {"inputs": [binary_tensor("INPUT0", "FP16", [1, 2], 4)], "parameters": BINARY_OUTPUT}
    assert http.infer_binary("identity_fp16", request, [values]).binary()[1] == values


def test_fp16_output_as_json_is_refused(http: Http) -> None:
    """FP16 has no JSON form."""
    request = {"inputs": [binary_tensor("INPUT0", "FP16", [1, 2], 4)]}
    text = http.infer_binary("identity_fp16", request, [bytes(4)]).error(400)
    assert "FP16 data via JSON is not supported" in text


def test_binary_bytes(http: Http) -> None:
    """BYTES: each element after its length, four bytes little-endian."""
    elements = [b"ab", "é".encode()]
    data = bytes_tensor(elements)
    request = {"inputs": [binary_tensor("INPUT0", "BYTES", [2, 1], len(data))], "parameters": BINARY_OUTPUT}
    _, tail = http.infer_binary("identity_bytes", request, [data]).binary()
    assert bytes_elements(tail) == elements


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes_tensor([b"a", b"b"]), id="too many elements"),
        pytest.param(struct.pack("<I", 100) + b"ab", id="an element longer than the rest"),
        pytest.param(struct.pack("<I", 2**32 - 1) + b"ab", id="an element of 4 GiB"),
        pytest.param(b"ab", id="an incomplete length"),
        pytest.param(b"", id="no element"),
        pytest.param(bytes_tensor([b"a"]) + b"\0", id="bytes left over"),
    ],
)
def test_bytes_that_do_not_add_up_are_refused(http: Http, data: bytes) -> None:
    """BYTES: lengths and elements fill the tensor."""
    request = {"inputs": [binary_tensor("INPUT0", "BYTES", [1, 1], len(data))]}
    assert http.infer_binary("identity_bytes", request, [data]).error(400)


def test_binary_tensor_without_elements(http: Http) -> None:
    """A tensor of no bytes: its size is 0."""
    request = {"inputs": [binary_tensor("INPUT0", "UINT8", [1, 0], 0)], "parameters": BINARY_OUTPUT}
    answer = http.infer_binary("identity_uint8", request, [])
    assert answer.status == 200
    # Where nothing follows the JSON, the header may be left out.
    length = int(answer.headers.get(LENGTH_HEADER.lower(), len(answer.body)))
    assert length == len(answer.body)
    assert b'"binary_data_size":0' in answer.body.replace(b" ", b"")


@pytest.mark.parametrize("length", ["-1", "999999", "2147483648", "99999999999999999999", "abc", "1.5", ""])
def test_length_header_that_cannot_be(http: Http, length: str) -> None:
    """Inference-Header-Content-Length: a number that is no more than the body."""
    assert http.infer_binary("simple", {"inputs": binary_inputs()}, SIMPLE_RAW, length=length).error(*MALFORMED)


@pytest.mark.parametrize("off_by", [-1, 1])
def test_length_header_that_misses_the_end_of_the_json(http: Http, off_by: int) -> None:
    """Inference-Header-Content-Length: exactly the JSON."""
    request = {"inputs": binary_inputs()}
    length = len(json.dumps(request)) + off_by
    assert http.infer_binary("simple", request, SIMPLE_RAW, length=str(length)).error(*MALFORMED)


def test_binary_data_without_the_header_is_refused(http: Http) -> None:
    """Without the header the whole body is JSON."""
    body = b'{"inputs": []}' + SIMPLE_RAW[0]
    assert http.infer("simple", body).error(*MALFORMED)


@pytest.mark.parametrize(
    ("size0", "size1", "tail"),
    [
        pytest.param(64, 65, 128, id="a size above the body"),
        pytest.param(64, 60, 128, id="a size below the body"),
        pytest.param(64, 60, 124, id="a size below the shape"),
        pytest.param(64, 68, 132, id="a size above the shape"),
        pytest.param(60, 68, 128, id="sizes that make up for each other"),
        pytest.param(64, 64, 132, id="bytes left over"),
        pytest.param(64, 64, 64, id="a tensor missing"),
        pytest.param(64, 0, 64, id="a size of 0"),
        pytest.param(2**62, 2**62, 128, id="sizes that overflow"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(http: Http, size0: int, size1: int, tail: int) -> None:
    """binary_data_size: what shape and datatype say; together what follows the JSON."""
    assert http.infer_binary("simple", {"inputs": binary_inputs(size0, size1)}, [bytes(tail)]).error(400)


@pytest.mark.parametrize("size", [-64, "64", 64.5, None, []])
def test_size_that_is_no_number_is_refused(http: Http, size: Json) -> None:
    """binary_data_size: an unsigned integer."""
    inputs = binary_inputs()
    inputs[1]["parameters"]["binary_data_size"] = size
    assert http.infer_binary("simple", {"inputs": inputs}, SIMPLE_RAW).error(*MALFORMED)


def test_data_in_two_places_is_refused(http: Http) -> None:
    """binary_data_size: instead of `data`."""
    inputs = binary_inputs()
    inputs[0]["data"] = list(range(16))
    text = http.infer_binary("simple", {"inputs": inputs}, SIMPLE_RAW).error(400)
    assert "'data'" in text
    assert "'binary_data_size'" in text


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"parameters": {"binary_data_output": "yes"}}, id="binary_data_output"),
        pytest.param({"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}]}, id="binary_data"),
    ],
)
def test_flag_that_is_no_boolean_is_refused(http: Http, members: Json) -> None:
    """binary_data, binary_data_output: booleans."""
    assert http.infer("simple", {"inputs": simple_inputs(), **members}).error(*MALFORMED)


def test_raw_request(http: Http) -> None:
    """Raw binary request: a header of 0, the body is the only input, the answer's outputs are binary."""
    values = np.array([1, 2, 3], "<f4").tobytes()
    answer, tail = http.infer_raw("identity_fp32", values).binary()
    assert answer["outputs"] == [binary_tensor("OUTPUT0", "FP32", [1, 3], 12)]
    assert tail == values


def test_raw_request_of_a_fixed_shape(http: Http) -> None:
    """Raw binary request: a batch of one."""
    scores = np.array([1, 2, 3, 4], "<f4")
    answer, tail = http.infer_raw("classifier", scores.tobytes()).binary()
    assert answer["outputs"][0]["shape"] == [1, 4]
    assert tail == (2 * scores).tobytes()


def test_raw_request_to_an_unbatched_model(http: Http) -> None:
    """Raw binary request, with max_batch_size 0: the configured shape."""
    values = np.arange(6, dtype="<f4").tobytes()
    answer, tail = http.infer_raw("unbatched", values).binary()
    assert (answer["outputs"][0]["shape"], tail) == ([2, 3], values)


def test_raw_request_of_bytes(http: Http) -> None:
    """Raw binary request: a single element, without its length."""
    element = "hé\0llo".encode()
    _, tail = http.infer_raw("identity_bytes", element).binary()
    assert bytes_elements(tail) == [element]


@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param("simple", b"".join(SIMPLE_RAW), id="two inputs"),
        pytest.param("dynamic", bytes(24), id="two variable dimensions"),
        pytest.param("identity_fp32", bytes(7), id="no whole element"),
        pytest.param("unbatched", bytes(20), id="too little"),
        pytest.param("unbatched", bytes(28), id="too much"),
        pytest.param("classifier", bytes(32), id="a batch of two"),
    ],
)
def test_raw_request_that_cannot_be_deduced_is_refused(http: Http, model: str, body: bytes) -> None:
    """Raw binary request: one input, at most one variable dimension, of the right size."""
    assert http.infer_raw(model, body).error(400)


def test_large_binary_tensor(http: Http) -> None:
    """Tensors of many megabytes are what the extension is for."""
    values = np.arange(2**21, dtype="<f4").tobytes()
    request = {"inputs": [binary_tensor("INPUT0", "FP32", [1, 2**21], len(values))], "parameters": BINARY_OUTPUT}
    assert http.infer_binary("identity_fp32", request, [values]).binary()[1] == values


def test_json_input_of_bytes_and_binary_output(http: Http) -> None:
    """BYTES: the JSON form of an element is its text."""
    request = {"inputs": [tensor("INPUT0", "BYTES", [1, 1], ["é"])], "parameters": BINARY_OUTPUT}
    assert bytes_elements(http.infer("identity_bytes", request).binary()[1]) == ["é".encode()]
