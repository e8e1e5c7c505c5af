"""Errors that nobody foresaw: the log has all of them, the client nothing but that there was one."""

from __future__ import annotations

import logging
from typing import Any

import grpc.aio
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.lifecycle import Lifecycle
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc
from service.rest.application import create_http_application
from service.rpc.classifier import ClassifierServicer
from service.rpc.inference import InferenceServicer
from service.rpc.registration import Registration

MISSING: Any = None
"""In place of every part: whatever is asked of it is an error in the service."""


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/classify"), ("GET", "/v2")])
async def test_over_http(method: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    parts: list[Any] = [MISSING] * 12
    parts[9] = Lifecycle()
    application = create_http_application(*parts, version="0", request_timeout_s=1, max_request_bytes=1, max_images=1)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error; the log has the details"})
    assert "NoneType" not in str(answer.headers)
    must_be_logged(caplog)


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_over_grpc(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
        from service.rpc.native import NativeServer

        server: grpc.aio.Server = NativeServer(MISSING, request_timeout_s=60, options=())
        server._is_known = lambda event: False  # type: ignore[attr-defined]
    else:
        server = grpc.aio.server()
    registration = Registration(server, MISSING, Lifecycle(), None)
    classifier = ClassifierServicer(MISSING, MISSING, MISSING, MISSING, request_timeout_s=1)
    parts: list[Any] = [MISSING] * 9
    parts[7] = Lifecycle()
    inference = InferenceServicer(*parts, request_timeout_s=1)
    classifier_pb2_grpc.add_ClassifierServicer_to_server(classifier, registration)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, registration)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ours: Any = classifier_pb2_grpc.ClassifierStub(channel)
            protocol: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def stream() -> None:
                async for _ in ours.ClassifyStream(iter([pb.ClassifyRequest()]), timeout=60):
                    pass

            for call in (
                lambda: ours.ListModels(pb.ListModelsRequest(), timeout=60),
                lambda: ours.Classify(pb.ClassifyRequest(), timeout=60),
                lambda: protocol.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=60),
                lambda: protocol.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(), timeout=60),
                stream,
            ):
                caplog.clear()
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call()
                assert raised.value.code() is grpc.StatusCode.INTERNAL
                assert raised.value.details() == "internal error; the service's log has the details"
                must_be_logged(caplog)
    finally:
        await server.stop(None)


def must_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert "NoneType" in caplog.text
