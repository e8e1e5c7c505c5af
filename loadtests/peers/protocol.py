"""How one tensor travels to a server and its logits back: raw over HTTP, or as the Open Inference Protocol has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as oip

from loadtests.peers.model import Model

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent.

    Attributes:
        body: over gRPC the message, without its frame.
    """

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        wire: HTTP or gRPC.
        request: of a model and the pixels of one image, (1, *shape).
        logits: (1, classes), of the model and the body that `ask` returned.
    """

    wire: str
    request: Callable[[Model, np.ndarray[Any, Any]], Request]
    logits: Callable[[Model, bytes], np.ndarray[Any, Any]]


class NotAnsweredError(Exception):
    """A request that was refused or got no answer, and why."""


def ask(protocol: Protocol, port: int, request: Request) -> bytes:
    """The body, over gRPC the message, of the answer to one request.

    Raises:
        NotAnsweredError: it was refused, or nobody listens.
    """
    return _ask_grpc(port, request) if protocol.wire == "gRPC" else _ask_http(port, request)


def _ask_http(port: int, request: Request) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as error:
        raise NotAnsweredError(repr(error)) from None
    finally:
        connection.close()
    if response.status != 200:
        raise NotAnsweredError(f"HTTP {response.status}: {body.decode(errors='replace')}")
    return body


def _ask_grpc(port: int, request: Request) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer: bytes = channel.unary_unary(request.path, bytes, bytes)(request.body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise NotAnsweredError(str(error)) from None
    return answer


def _raw_request(_: Model, pixels: np.ndarray[Any, Any]) -> Request:
    return Request("/predict", {"content-type": "application/octet-stream"}, pixels.tobytes())


def _raw_logits(_: Model, body: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(body, np.float32)[None]


def _http_request(model: Model, pixels: np.ndarray[Any, Any]) -> Request:
    tensor = {
        "name": model.input,
        "datatype": "UINT8",
        "shape": pixels.shape,
        "parameters": {"binary_data_size": pixels.nbytes},
    }
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
    return Request(f"/v2/models/{model.name}/infer", headers, header + pixels.tobytes())


def _http_logits(model: Model, body: bytes) -> np.ndarray[Any, Any]:
    """The answer's only tensor, the end of the body; the JSON before it says how long it is."""
    header, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    (tensor,) = header["outputs"]
    if tensor["name"] != model.output or len(body) - end != tensor["parameters"]["binary_data_size"]:
        raise ValueError(f"not the one tensor {model.output} in binary: {header}")
    return np.frombuffer(body[end:], np.float32).reshape(tensor["shape"])


def _grpc_request(model: Model, pixels: np.ndarray[Any, Any]) -> Request:
    message = oip.ModelInferRequest(
        model_name=model.name,
        inputs=[oip.ModelInferRequest.InferInputTensor(name=model.input, datatype="UINT8", shape=pixels.shape)],
        raw_input_contents=[pixels.tobytes()],
    )
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request("/inference.GRPCInferenceService/ModelInfer", headers, message.SerializeToString())


def _grpc_logits(_: Model, message: bytes) -> np.ndarray[Any, Any]:
    answer = oip.ModelInferResponse.FromString(message)
    (content,) = answer.raw_output_contents
    return np.frombuffer(content, np.float32).reshape(answer.outputs[0].shape)


RAW = Protocol("HTTP", _raw_request, _raw_logits)
OIP_HTTP = Protocol("HTTP", _http_request, _http_logits)
OIP_GRPC = Protocol("gRPC", _grpc_request, _grpc_logits)
