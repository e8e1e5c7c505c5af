"""KServe's Python client against a running service: `python client.py URL ADDRESS IMAGE` prints its answers as JSON.

It runs in an environment that has nothing of Fovea's (`tests.kserve.install`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import (  # type: ignore[import-not-found]
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]

Infer = Callable[[InferRequest], Awaitable[Any]]

TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "FP32": np.array([[1.5, -2.25], [3e-8, 1e30]], np.float32),
    "UINT8": np.array([[0, 1], [254, 255]], np.uint8),
    "BYTES": np.array([["lynx"], ["\N{TIGER} and puma"]], np.object_),
}


async def main(url: str, address: str, image: bytes) -> None:
    config = RESTConfig(protocol="v2")
    async with InferenceRESTClient(config) as rest, InferenceGRPCClient(address) as rpc:
        answers = {
            "http": {
                "live": await rest.is_server_live(url),
                "ready": await rest.is_server_ready(url),
                "models": {name: await rest.is_model_ready(url, name) for name in ("cifar10", "unknown")},
                **await inferred(lambda request: rest.infer(url, request, request.model_name), image),
            },
            "grpc": {
                "live": await rpc.is_server_live(),
                "ready": await rpc.is_server_ready(),
                "models": {name: await rpc.is_model_ready(name) for name in ("cifar10", "unknown")},
                **await inferred(rpc.infer, image),
            },
        }
    json.dump(answers, sys.stdout)


async def inferred(infer: Infer, image: bytes) -> dict[str, Any]:
    """The answers to one and the same requests."""
    pixels = np.array([image], np.object_)
    scores = np.array([[0.5, 4, -1, 2]], np.float32)
    ask = partial(outcome, infer)
    return {
        **{
            f"{datatype} {binary=}": await ask(
                f"identity_{datatype.lower()}", "INPUT0", tensor, binary=binary, output="OUTPUT0"
            )
            for datatype, tensor in TENSORS.items()
            for binary in (True, False)
        },
        "image": await ask("cifar10", "pixels", pixels, output="logits"),
        "image's classes": await ask("cifar10", "pixels", pixels, output="logits", classification=3),
        "scores' classes": await ask("classifier", "SCORES", scores, output="LOGITS", classification=2),
        "unknown model": await ask("unknown", "INPUT0", scores),
        "wrong shape": await ask("classifier", "SCORES", scores[:, :3]),
        "wrong datatype": await ask("classifier", "SCORES", scores.astype(np.uint8)),
        "no image": await ask("cifar10", "pixels", np.array([b"no image"], np.object_)),
    }


async def outcome(
    infer: Infer,
    model: str,
    name: str,
    tensor: np.ndarray[Any, Any],
    *,
    binary: bool = True,
    output: str = "",
    **parameters: int,
) -> Mapping[str, Any]:
    """What came back of one request: a tensor, or the client's exception."""
    datatype = {"f": "FP32", "u": "UINT8", "O": "BYTES"}[tensor.dtype.kind]
    given = InferInput(name, [*tensor.shape], datatype)
    given.set_data_from_numpy(tensor, binary_data=binary)
    wanted = [RequestedOutput(output, {"binary_data": binary, **parameters})] if output else None
    try:
        answer = await infer(InferRequest(model, [given], request_id="7", request_outputs=wanted))
    except httpx.HTTPStatusError as error:
        return {"raised": type(error).__name__, "status": error.response.status_code, "message": str(error)}
    except grpc.RpcError as error:
        return {"raised": type(error).__name__, "status": error.code().name, "message": error.details()}
    (found,) = answer.outputs
    flat = [value.decode() if isinstance(value, bytes) else value for value in found.as_numpy().ravel().tolist()]
    return {
        "id": answer.id,
        "model": answer.model_name,
        "name": found.name,
        "datatype": found.datatype,
        "shape": found.shape,
        "values": flat,
    }


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
