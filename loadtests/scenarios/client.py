"""Images to the service and labels back, over either protocol, from an event loop."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

TIMEOUT_S = 60.0


class NotAnsweredError(Exception):
    """A request that came back without a label for each of its images, and why."""


@dataclass(frozen=True)
class Client:
    """One protocol.

    Attributes:
        prepare: what is done to an encoded image once, before any request is timed.
        classify: the prepared images of one request to the label of each. Raises NotAnsweredError, or what the
            protocol's library raises.
    """

    prepare: Callable[[bytes], bytes]
    classify: Callable[[list[bytes]], Awaitable[list[str]]]


@asynccontextmanager
async def over_grpc(address: str) -> AsyncIterator[Client]:
    """`fovea.v1.Classifier/Classify` on one connection. The address is `host:port`."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)

        async def classify(images: list[bytes]) -> list[str]:
            try:
                response: pb.ClassifyResponse = await stub.Classify(
                    pb.ClassifyRequest(images=images, top_k=1), timeout=TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                raise NotAnsweredError(f"{error.code().name}: {error.details()}") from None
            for result in response.results:
                if not result.HasField("classification"):
                    raise NotAnsweredError(result.error.message)
            return [result.classification.predictions[0].label for result in response.results]

        yield Client(bytes, classify)


@asynccontextmanager
async def over_http(url: str, *, single: bool) -> AsyncIterator[Client]:
    """`POST /v1/classify` on connections that are kept, as many as there are requests at a time.

    Args:
        single: every request is one image, and is its raw body; else requests are JSON.
    """
    headers = {"content-type": "application/octet-stream" if single else "application/json"}
    session = aiohttp.ClientSession(
        url, headers=headers, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(TIMEOUT_S)
    )
    async with session:

        async def answer(body: bytes) -> Any:
            async with session.post("/v1/classify?top_k=1", data=body) as response:
                content = await response.read()
            if response.status != 200:
                raise NotAnsweredError(f"HTTP {response.status}: {content.decode(errors='replace')}")
            return json.loads(content)

        async def classify_one(images: list[bytes]) -> list[str]:
            (image,) = images
            return [_label(await answer(image))]

        async def classify_several(images: list[bytes]) -> list[str]:
            results = await answer(b'{"images": ["' + b'", "'.join(images) + b'"]}')
            return [_label(result) for result in results["results"]]

        yield Client(bytes, classify_one) if single else Client(base64.b64encode, classify_several)


def _label(result: dict[str, Any]) -> str:
    if "predictions" not in result:
        raise NotAnsweredError(str(result.get("error", result)))
    label: str = result["predictions"][0]["label"]
    return label
