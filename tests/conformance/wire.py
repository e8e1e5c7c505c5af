"""What the clauses say and hear: HTTP as bytes and headers, gRPC through the stubs that tritonclient ships."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

Json = Any
Array = np.ndarray[Any, Any]
TIMEOUT_S = 60.0
# "Typically 400", says the protocol; Triton answers 500 where it is its JSON parser that refuses.
MALFORMED = (400, 500)
LENGTH_HEADER = "Inference-Header-Content-Length"
NUMPY: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        assert self.status == 200, self
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    def error(self, *statuses: int) -> str:
        """The text of an error: every one is a JSON object whose member `error` is a string."""
        assert self.status in statuses, self
        error = json.loads(self.body)["error"]
        assert isinstance(error, str)
        assert error
        return error

    def binary(self) -> tuple[Json, bytes]:
        """The JSON and what follows it, as the header that tells them apart says."""
        assert self.status == 200, self
        assert self.headers["content-type"] == "application/octet-stream", self
        length = int(self.headers[LENGTH_HEADER.lower()])
        return json.loads(self.body[:length]), self.body[length:]


class Http:
    """A server's HTTP endpoint; every request has a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}")
        self.address = parts.netloc
        self.base_path = parts.path.rstrip("/")

    def request(
        self, method: str, path: str, body: bytes | Json = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = self.connect()
        try:
            return self.exchange(connection, method, path, body, headers)
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)

    def exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Json = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        connection.request(method, self.base_path + path, body, dict(headers or {}), encode_chunked=chunked)
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: bytes | Json = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("POST", path, body, headers)

    def infer(
        self, model: str, body: bytes | Json, headers: Mapping[str, str] | None = None, *, version: str = ""
    ) -> Answer:
        return self.post(f"{model_path(model, version)}/infer", body, headers)

    def infer_binary(
        self, model: str, request: Json, tensors: Iterable[bytes], *, length: str | None = None, version: str = ""
    ) -> Answer:
        """A request whose tensors follow its JSON; `length` is what the header says instead of the truth."""
        head = json.dumps(request).encode()
        headers = {
            LENGTH_HEADER: str(len(head)) if length is None else length,
            "Content-Type": "application/octet-stream",
        }
        return self.infer(model, head + b"".join(tensors), headers, version=version)

    def infer_raw(self, model: str, body: bytes) -> Answer:
        return self.infer(model, body, {LENGTH_HEADER: "0", "Content-Type": "application/octet-stream"})


class Grpc:
    """A server's gRPC endpoint."""

    def __init__(self, address: str) -> None:
        # Unlimited, as in every client of Triton.
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def call(self, method: str, request: Any, **options: Any) -> Any:
        return getattr(self.stub, method)(request, timeout=TIMEOUT_S, **options)

    def infer(self, request: Any, **options: Any) -> Any:
        return self.call("ModelInfer", request, **options)


@contextmanager
def refused(*codes: grpc.StatusCode, text: str = "") -> Iterator[None]:
    """What is done within fails with one of these codes, and a text that contains `text`."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error: Any = caught.value
    assert error.code() in codes, (error.code(), error.details())
    assert text in error.details()


def model_path(model: str, version: str = "") -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def fields(message: Any) -> Json:
    """A message as JSON, with its fields' own names and the fields that have their default value."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def tensor(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Json:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": list(data)}


def binary_tensor(name: str, datatype: str, shape: Sequence[int], size: int) -> Json:
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}


def simple_inputs(batch: int = 1) -> list[Json]:
    """Inputs of the model "simple": ascending numbers, and ones."""
    return [
        tensor("INPUT0", "INT32", [batch, 16], range(16 * batch)),
        tensor("INPUT1", "INT32", [batch, 16], [1] * 16 * batch),
    ]


def simple_outputs(batch: int = 1) -> tuple[Array, Array]:
    """Their sum and their difference."""
    numbers = np.arange(16 * batch, dtype="<i4")
    return numbers + 1, numbers - 1


SIMPLE_RAW = (np.arange(16, dtype="<i4").tobytes(), np.ones(16, "<i4").tobytes())


def rows(name: str, values: Sequence[Sequence[float]]) -> Json:
    """An FP32 input, a row for each item of a batch."""
    return tensor(name, "FP32", [len(values), len(values[0])], [value for row in values for value in row])


def bytes_tensor(elements: Iterable[bytes]) -> bytes:
    """Elements as the binary extension has them: each after its length."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def bytes_elements(data: bytes) -> list[bytes]:
    elements = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        assert len(data) >= 4 + length
        elements.append(data[4 : 4 + length])
        data = data[4 + length :]
    return elements


def infer_request(
    model: str,
    inputs: Iterable[tuple[str, str, Sequence[int]]],
    raw: Iterable[bytes] = (),
    outputs: Iterable[str] = (),
    **members: Any,
) -> Any:
    """A ModelInferRequest; inputs are name, datatype and shape."""
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=raw, **members)
    for name, datatype, shape in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def simple_request(outputs: Iterable[str] = (), **members: Any) -> Any:
    inputs = [("INPUT0", "INT32", [1, 16]), ("INPUT1", "INT32", [1, 16])]
    return infer_request("simple", inputs, SIMPLE_RAW, outputs, **members)


def slow_request(model: str) -> Any:
    """One of the requests that take a while."""
    return infer_request(model, [("INPUT0", "FP32", [1, 1])], [np.ones(1, "<f4").tobytes()])
