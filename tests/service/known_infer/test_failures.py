"""What goes wrong with known requests."""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from service.telemetry import request_id
from tests.conformance.models import write_identity
from tests.service.inside import ORDINARY, Client, Inside, infer, inside, post, shown, tensors_of, words_of
from tests.service.known_infer.knowing import ALONE, ONE, know

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_full_queue_refuses_at_once(service: Inside, client: Client) -> None:
    request = infer("alone", ONE)
    await know(service, client, request)
    rejected = await service.metric("fovea_requests_rejected_total")
    service.gate.shut()
    async with await service.connect() as ahead, await service.connect() as waiting:
        ahead.send(request)
        await service.gate.reached()
        waiting.send(request)
        await service.waits("alone", 1)
        refused = await client.ask(request)
        assert len(service.known) == 3
        assert shown(refused) == shown(await client.ask(infer("alone", ONE, ORDINARY)))
        assert (refused.headers["retry-after"], refused.headers["content-type"]) == ("1", "application/json")
        assert "Exceeds maximum queue size" in refused.error(503)
        assert await service.metric("fovea_requests_rejected_total") == rejected + 2
        # Several on one connection are refused in their turn.
        client.send(request, request, request)
        assert [(await client.answer()).status for _ in range(3)] == [503] * 3
        service.gate.open()
        assert [(await each.answer()).status for each in (ahead, waiting)] == [200, 200]


async def test_a_connection_is_not_idle_because_its_first_request_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one takes longer than a connection may be idle."""
    write_identity(tmp_path, "alone", "FP32", (2,), max_batch_size=1, extra=ALONE)
    write_identity(tmp_path, "other", "FP32", (2,))
    config = uvicorn.Config
    monkeypatch.setattr(
        uvicorn, "Config", lambda *given, **options: config(*given, **options | {"timeout_keep_alive": 0})
    )
    async with inside(tmp_path) as service, AsyncExitStack() as stack:
        ahead, waiting, last = [await stack.enter_async_context(await service.connect()) for _ in range(3)]
        for model in ("alone", "other"):
            for _ in range(2):
                async with await service.connect() as first:
                    assert (await first.ask(infer(model, ONE))).status == 200
        service.gate.shut()
        ahead.send(infer("alone", ONE))
        await service.gate.reached()
        waiting.send(infer("alone", ONE))
        await service.waits("alone", 1)
        service.known.clear()
        last.send(infer("alone", ONE), infer("other", ONE))
        assert (await last.answer()).status == 503
        await service.gate.reached(2)
        service.gate.open()
        assert (await last.answer()).status == 200
        assert len(service.known) == 2


async def test_a_request_waits_no_longer_than_it_wants(service: Inside, client: Client) -> None:
    words, tensors = words_of(ONE, timeout=20_000), tensors_of(ONE)
    await know(service, client, post("patient", words, tensors))
    failed = service.statistics("patient").fail.count
    service.gate.shut()
    async with await service.connect() as ahead, await service.connect() as ordinary:
        ahead.send(infer("patient", ONE, ORDINARY))
        await service.gate.reached()
        refused = await client.ask(post("patient", words, tensors))
        assert shown(refused) == shown(await ordinary.ask(post("patient", words, tensors, ORDINARY)))
        assert refused.error(503) == "Request timeout expired"
        assert refused.headers["retry-after"] == "1"
        assert service.statistics("patient").fail.count == failed + 2
        assert len(service.known) == 1
        service.gate.open()
        assert (await ahead.answer()).status == 200
    assert service.gate.sizes == [1]


async def test_a_request_is_answered_in_time_or_not_at_all(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with inside(tmp_path, request_timeout_s=2.0) as service, await service.connect() as client:
        await know(service, client, infer("pair", ONE))
        service.gate.shut()
        async with await service.connect() as ordinary:
            ordinary.send(infer("pair", ONE, ORDINARY))
            await service.gate.reached()
            late = await client.ask(infer("pair", ONE))
            assert shown(late) == shown(await ordinary.answer())
        assert late.error(504) == "the deadline passed before the result was there"
        assert len(service.known) == 1
        service.gate.open()
        # What was late costs nothing.
        assert (await client.ask(infer("pair", ONE))).status == 200
        assert len(service.gate.sizes) == 2
        assert service.statistics("pair").fail.count == 2


async def test_a_batch_that_fails_fails_its_requests(service: Inside, client: Client) -> None:
    good, bad = ({"INDEX": np.array([[index]], "<i8")} for index in (1, 99))
    await know(service, client, infer("lookup", good))
    failed = service.statistics("lookup").fail.count
    answer = await client.ask(infer("lookup", bad))
    assert len(service.known) == 1
    assert shown(answer) == shown(await client.ask(infer("lookup", bad, ORDINARY)))
    assert answer.error(500).startswith("inference failed: ")
    assert service.statistics("lookup").fail.count == failed + 2
    assert (await client.ask(infer("lookup", good))).binary()[1] == np.array([20], "<f4").tobytes()


async def test_the_log_names_the_request(service: Inside, client: Client) -> None:
    await know(service, client, infer("lookup", {"INDEX": np.array([[1]], "<i8")}))
    logged: list[tuple[str, str]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append((request_id.get(), record.getMessage()))

    logger, kept, level = logging.getLogger("fovea"), Kept(), logging.getLogger("fovea").level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    try:
        for index, own in ((1, []), (1, [ORDINARY]), (99, []), (99, [ORDINARY])):
            values = {"INDEX": np.array([[index]], "<i8")}
            await client.ask(infer("lookup", values, "x-request-id: mine", *own))
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
    assert len(service.known) == 2
    mine = [re.sub(r"in [\d.]+ ms", "", text) for identity, text in logged if identity == "mine"]
    assert (len(logged), len(mine)) == (6, 6)
    assert Counter(mine[:1] + mine[2:4]) == Counter(mine[1:2] + mine[4:])
    assert request_id.get() == "-"


async def test_who_goes_away_while_he_waits_costs_nothing(service: Inside, client: Client) -> None:
    await know(service, client, infer("patient", ONE))
    cancelled = await service.metric("fovea_requests_total", protocol="http", model="patient", code="499")
    counted = service.statistics("patient").success.count
    service.gate.shut()
    async with await service.connect() as ahead:
        ahead.send(infer("patient", ONE))
        await service.gate.reached()
        for own in ([], [ORDINARY]):
            async with await service.connect() as gone:
                gone.send(infer("patient", ONE, *own))
                await service.waits("patient", 1 + bool(own))
        await service.wait_for_metric(cancelled + 2, "fovea_requests_total", code="499", model="patient")
        assert await service.metric("fovea_requests_in_flight", protocol="http") == 1
        service.gate.open()
        assert (await ahead.answer()).status == 200
    assert (await client.ask(infer("patient", ONE))).status == 200
    assert service.gate.sizes == [1, 1]
    assert service.statistics("patient").success.count == counted + 2


async def test_who_goes_away_while_he_is_answered_harms_nobody(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("pair", ONE))
    await service.gate.reached()
    async with await service.connect() as gone, await service.connect() as stays:
        for each in (gone, stays):
            each.send(infer("pair", ONE))
        await service.waits("pair", 2)
        service.gate.sizes.clear()
        service.gate.open()
        await service.gate.reached()
        gone.writer.transport.abort()
        assert (await stays.answer()).status == 200
    assert (await client.answer()).status == 200
