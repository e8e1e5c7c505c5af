"""Images in memory that the service shares, in the place of the message's own bytes."""

from __future__ import annotations

import base64
import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from tritonclient.grpc import service_pb2 as oip

from loadtests.fetch import fetch
from loadtests.peers.model import Model
from loadtests.peers.protocol import Request

REGION = "images"


def shared_request(wire: str, model: Model, images: int) -> Request:
    """A request for the first images of the region. The logits come back in the answer.

    Args:
        wire: HTTP or gRPC.
    """
    shape = (images, *model.shape)
    size_bytes = prod(shape)
    if wire == "HTTP":
        place = {"shared_memory_region": REGION, "shared_memory_byte_size": size_bytes}
        tensor = {"name": model.input, "datatype": "UINT8", "shape": shape, "parameters": place}
        body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        return Request(f"/v2/models/{model.name}/infer", {"content-type": "application/json"}, body)
    message = oip.ModelInferRequest(model_name=model.name)
    given = message.inputs.add(name=model.input, datatype="UINT8", shape=shape)
    given.parameters["shared_memory_region"].string_param = REGION
    given.parameters["shared_memory_byte_size"].int64_param = size_bytes
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request("/inference.GRPCInferenceService/ModelInfer", headers, message.SerializeToString())


@contextmanager
def system_region(http: str, content: bytes) -> Iterator[None]:
    """A region of the host's memory, registered with the service at this URL."""
    block = SharedMemory(create=True, size=len(content))
    try:
        assert block.buf is not None
        block.buf[: len(content)] = content
        _register(http, "system", {"key": f"/{block.name}", "offset": 0, "byte_size": len(content)})
        yield
    finally:
        block.close()
        block.unlink()


@contextmanager
def cuda_region(http: str, content: bytes, device_id: int) -> Iterator[None]:
    """A region of a GPU's memory, registered with the service at this URL.

    Raises:
        SystemExit: CUDA refuses.
    """
    from cuda.bindings import runtime

    def call(name: str, *arguments: object) -> Any:
        status, *results = getattr(runtime, name)(*arguments)
        if status:
            raise SystemExit(f"error: {name}: {runtime.cudaGetErrorString(status)[1].decode()}")
        return results[0] if results else None

    call("cudaSetDevice", device_id)
    address = call("cudaMalloc", len(content))
    try:
        call("cudaMemcpy", address, content, len(content), runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)
        handle = call("cudaIpcGetMemHandle", address)
        raw = base64.b64encode(ctypes.string_at(int(handle.getPtr()), 64)).decode()
        _register(http, "cuda", {"raw_handle": {"b64": raw}, "device_id": device_id, "byte_size": len(content)})
        yield
    finally:
        runtime.cudaFree(address)


def _register(http: str, kind: str, place: dict[str, Any]) -> None:
    fetch(f"{http}/v2/{kind}sharedmemory/region/{REGION}/register", json.dumps(place).encode(), "application/json")
