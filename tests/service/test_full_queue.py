"""Images that find the queue full, over HTTP: refused from the connection as they would be by the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from service.rest.connection import HttpConnection
from service.rest.full_queue import FullQueue
from service.telemetry import RequestRecord, Telemetry, request_id
from service.trace_context import trace_context
from tests.repositories import picture, write_model
from tests.service.inside import Client, Inside, inside, shown

RED = picture("red")
ROOM_FOR_ONE = """
dynamic_batching { default_queue_policy { max_queue_size: 1 } } instance_group { count: 1 kind: KIND_CPU }
"""
BY_THE_APPLICATION = "origin: http://here"
IN_JSON = b'{"images": ["AA=="], "model": "none"}'
FULL = "Exceeds maximum queue size: 1 rows are waiting"


def post(path: str, *headers: str, content: bytes = RED, content_type: str = "image/jpeg") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {content_type}", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every request that was offered, whether it was refused from the connection."""
    found: list[bool] = []
    take = FullQueue.take

    def seen(queue: FullQueue, connection: HttpConnection, body: bytes) -> bool:
        found.append(take(queue, connection, body))
        return found[-1]

    monkeypatch.setattr(FullQueue, "take", seen)
    return found


@asynccontextmanager
async def full(service: Inside, taken: list[bool], path: str, model: str) -> AsyncIterator[Client]:
    """A client of a service whose queue for the model is full."""
    async with AsyncExitStack() as stack:
        ahead, waiting, client = [await stack.enter_async_context(await service.connect()) for _ in range(3)]
        service.gate.shut()
        ahead.send(post(path))
        await service.gate.reached()
        waiting.send(post(path))
        await service.waits(model, 1)
        taken.clear()
        yield client
        service.gate.open()
        assert [(await each.answer()).status for each in (ahead, waiting)] == [200, 200]


@pytest.mark.parametrize("query", ["", "?model=colours", "?version=1&model=colours"])
async def test_it_is_the_applications_answer(tmp_path: Path, taken: list[bool], query: str) -> None:
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    async with inside(tmp_path) as service, full(service, taken, "/v1/classify", "colours") as client:
        refused = await client.ask(post(f"/v1/classify{query}", "x-request-id: mine"))
        assert taken == [True]
        assert refused.error(503) == FULL
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-request-id"] == "mine"
        assert shown(refused) == shown(await client.ask(post(f"/v1/classify{query}", BY_THE_APPLICATION)))
        assert taken == [True, False]


async def test_features_have_a_queue_of_their_own(tmp_path: Path, taken: list[bool]) -> None:
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    write_model(tmp_path, "features", max_batch_size=1, extra=ROOM_FOR_ONE, features=True)
    async with inside(tmp_path) as service, full(service, taken, "/v1/embed", "features") as client:
        assert (await client.ask(post("/v1/embed"))).error(503) == FULL
        assert (await client.ask(post("/v1/classify?model=features"))).status == 400
        client.send(post("/v1/classify"))
        await service.gate.reached(2)
        service.gate.open()
        assert (await client.answer()).status == 200
        assert taken == [True, False, False]


async def test_what_is_something_else_is_left_to_the_application(tmp_path: Path, taken: list[bool]) -> None:
    """An answer tells what is wrong with a request before it tells that there is no room for it."""
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    async with (
        inside(tmp_path, max_request_bytes=2000) as service,
        full(service, taken, "/v1/classify", "colours") as client,
    ):
        for status, request in (
            (404, post("/v1/classify?model=none")),
            (404, post("/v1/classify?version=9")),
            (400, post("/v1/classify?top_k=0")),
            (503, post("/v1/classify?top_k=3")),
            (413, post("/v1/classify", content=bytes(2001))),
            (415, post("/v1/classify", content_type="text/plain")),
            (
                404,
                post("/v1/classify", content_type="application/json", content=b'{"images": ["AA=="], "model": "no"}'),
            ),
            (404, post("/v1/classified")),
        ):
            answer = await client.ask(request)
            assert answer.status == status, answer
        assert not any(taken)


async def test_it_is_counted_as_others(tmp_path: Path, taken: list[bool]) -> None:
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    refused = {"protocol": "http", "model": "colours", "code": "503"}
    async with inside(tmp_path) as service, full(service, taken, "/v1/classify", "colours") as client:
        for number, header in enumerate(("x-request-id: mine", BY_THE_APPLICATION), 1):
            await client.ask(post("/v1/classify", header))
            assert await service.metric("fovea_requests_total", **refused) == number
            assert await service.metric("fovea_requests_rejected_total", protocol="http") == number
            reason = {"model": "colours", "version": "1", "reason": "REJECTED"}
            assert await service.metric("nv_inference_request_failure", **reason) == number
            assert await service.metric("fovea_requests_in_flight", protocol="http") == 2
        assert taken == [True, False]


async def test_what_is_said_of_it_names_the_request(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str, str]] = []
    end = Telemetry.end

    def seen(telemetry: Telemetry, record: RequestRecord, error: BaseException | None = None) -> None:
        context = trace_context.get()
        ended.append((request_id.get(), context.trace_id if context else "", str(error)))
        end(telemetry, record, error)

    monkeypatch.setattr(Telemetry, "end", seen)
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    trace = 31 * "0" + "1"
    headers = ("x-request-id: mine", f"traceparent: 00-{trace}-{16 * '1'}-01")
    async with inside(tmp_path) as service, full(service, taken, "/v1/classify", "colours") as client:
        await client.ask(post("/v1/classify", *headers))
        assert taken == [True]
        assert ended == [("mine", trace, FULL)]
        assert request_id.get() == "-"


async def test_a_service_that_stops_says_that(tmp_path: Path, taken: list[bool]) -> None:
    write_model(tmp_path, max_batch_size=1, extra=ROOM_FOR_ONE)
    async with inside(tmp_path) as service, full(service, taken, "/v1/classify", "colours") as client:
        service.lifecycle.stopping.set()
        assert (await client.ask(post("/v1/classify"))).error(503) == "the service is stopping"
        assert taken == [False]
