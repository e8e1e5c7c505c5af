"""Clients that go away while their images wait cost no inference; a gate keeps the instance busy meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub
from tests.repositories import picture, write_model
from tests.service.conftest import ONE_INSTANCE
from tests.service.inside import TIMEOUT_S, inside

RED = picture("red")
LEAVING = 8


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path, max_batch_size=2, extra=ONE_INSTANCE)
    return tmp_path


async def test_over_http(repository: Path) -> None:
    async with (
        inside(repository, max_queue_size=LEAVING) as service,
        httpx.AsyncClient(base_url=f"http://{service.running.http_address}", timeout=TIMEOUT_S) as http,
    ):

        def ask() -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(http.post("/v1/classify", content=RED, headers={"content-type": "image/jpeg"}))

        service.gate.shut()
        working = ask()
        await service.gate.reached()
        leaving = [ask() for _ in range(LEAVING)]
        await service.waits("colours", LEAVING)
        for request in leaving:
            request.cancel()
        await service.wait_for_metric(LEAVING, "fovea_requests_total", protocol="http", code="499")
        service.gate.open()
        assert (await working).status_code == 200
        assert (await ask()).status_code == 200
        assert service.gate.sizes == [1, 1]
        assert await service.metric("fovea_requests_in_flight", protocol="http") == 0


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_over_grpc(repository: Path, transport: str) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    async with (
        inside(repository, max_queue_size=LEAVING, grpc_transport=transport) as service,
        grpc.aio.insecure_channel(service.running.grpc_address) as channel,
    ):

        def ask() -> Any:
            return ClassifierStub(channel).Classify(pb.ClassifyRequest(images=[RED]), timeout=TIMEOUT_S)

        service.gate.shut()
        working = ask()
        await service.gate.reached()
        leaving = [ask() for _ in range(LEAVING)]
        await service.waits("colours", LEAVING)
        for call in leaving:
            call.cancel()
        await service.wait_for_metric(LEAVING, "fovea_requests_total", protocol="grpc", code="CANCELLED")
        service.gate.open()
        assert len((await working).results) == 1
        assert len((await ask()).results) == 1
        assert service.gate.sizes == [1, 1]
        assert await service.metric("fovea_requests_in_flight", protocol="grpc") == 0
