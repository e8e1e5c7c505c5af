"""Clients that go away while their images wait cost no inference; a gate keeps the instance busy meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub
from tests.repositories import picture, write_model
from tests.service.conftest import ONE_INSTANCE
from tests.service.inside import TIMEOUT_S, Inside, inside

RED = picture("red")
LEAVING = 8


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path, max_batch_size=2, extra=ONE_INSTANCE)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info or "Traceback" in record.message]


async def test_over_http(repository: Path) -> None:
    async with (
        inside(repository, max_queue_size=LEAVING) as service,
        httpx.AsyncClient(base_url=f"http://{service.running.http_address}", timeout=TIMEOUT_S) as http,
    ):

        async def post() -> None:
            answer = await http.post("/v1/classify", content=RED, headers={"content-type": "image/jpeg"})
            assert answer.status_code == 200

        await cost_nothing(service, lambda: asyncio.create_task(post()), protocol="http", code="499")


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_over_grpc(repository: Path, transport: str) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    async with (
        inside(repository, max_queue_size=LEAVING, grpc_transport=transport) as service,
        grpc.aio.insecure_channel(service.running.grpc_address) as channel,
    ):
        stub, request = ClassifierStub(channel), pb.ClassifyRequest(images=[RED])
        await cost_nothing(
            service, lambda: stub.Classify(request, timeout=TIMEOUT_S), protocol="grpc", code="CANCELLED"
        )


async def cost_nothing(service: Inside, ask: Callable[[], Any], *, protocol: str, code: str) -> None:
    """Those that leave are counted with this code; only the one before them and the one after them are run."""
    service.gate.shut()
    working = ask()
    await service.gate.reached()
    leaving = [ask() for _ in range(LEAVING)]
    await service.waits("colours", LEAVING)
    for each in leaving:
        each.cancel()
    await service.wait_for_metric(LEAVING, "fovea_requests_total", protocol=protocol, code=code)
    service.gate.open()
    await working
    await ask()
    assert service.gate.sizes == [1, 1]
    assert await service.metric("fovea_requests_in_flight", protocol=protocol) == 0
