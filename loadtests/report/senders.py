"""One image over HTTP or gRPC, from an event loop."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle

import grpc.aio

from loadtests.openloop import Send
from loadtests.refusals import reason
from loadtests.report.http_connections import TIMEOUT_S, HttpConnections
from loadtests.report.result import Protocol
from loadtests.target import Target
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

GRPC_CONNECTIONS = 8
GENERATOR = "an asyncio client (HTTP/1.1 by httptools; grpcio with 8 connections), one process of one thread"


@asynccontextmanager
async def sender(protocol: Protocol, target: Target, images: Sequence[bytes]) -> AsyncIterator[Send]:
    """What sends the images in turn, one a request, on connections that stay open."""
    if protocol == "HTTP":
        async with _http(target, images) as send:
            yield send
    else:
        async with _grpc(target, images) as send:
            yield send


def allow_many_connections() -> None:
    """As many open files as this process may have: an open load that is not answered takes a connection a request."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@asynccontextmanager
async def _http(target: Target, images: Sequence[bytes]) -> AsyncIterator[Send]:
    connections, bodies = HttpConnections(f"{target.http}/v1/classify", "image/jpeg"), cycle(images)
    try:
        yield lambda: connections.post(next(bodies))
    finally:
        connections.close()


@asynccontextmanager
async def _grpc(target: Target, images: Sequence[bytes]) -> AsyncIterator[Send]:
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target.grpc, options))
            for _ in range(GRPC_CONNECTIONS)
        ]
        stubs = cycle(classifier_pb2_grpc.ClassifierStub(channel) for channel in channels)
        requests = cycle(pb.ClassifyRequest(images=[image]) for image in images)

        async def send() -> str | None:
            try:
                await next(stubs).Classify(next(requests), timeout=TIMEOUT_S)
                return None
            except grpc.aio.AioRpcError as error:
                return reason(error)

        yield send
