"""Known requests when the service stops."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.conformance.models import write_identity
from tests.service.inside import ORDINARY, Client, infer, inside, shown
from tests.service.known_infer.knowing import ONE, know
from tests.service.launch import running

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_answers_at_the_end_say_that_it_is_the_end(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with inside(tmp_path) as service, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await service.connect()) for _ in range(3)]
        await know(service, clients[0], infer("pair", ONE))
        service.gate.shut()
        for client, own in zip(clients, ([ORDINARY], [], []), strict=True):
            client.send(infer("pair", ONE, *own))
        await service.gate.reached()
        await service.waits("pair", 2)
        assert len(service.known) == 2
        service.lifecycle.stopping.set()
        late = await stack.enter_async_context(await service.connect())
        refused = await late.ask(infer("pair", ONE))
        assert (refused.error(503), refused.headers["connection"]) == ("the service is stopping", "close")
        service.gate.open()
        ordinary, *known = [await client.answer() for client in clients]
        assert ordinary.headers["connection"] == "close"
        assert [shown(answer) for answer in known] == [shown(ordinary)] * 2
        for client in (*clients, late):
            assert await client.ending() == b""


async def test_the_grace_period_bounds_the_wait_of_known_requests(tmp_path: Path) -> None:
    """What waits then is not inferred any more."""
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with AsyncExitStack() as stack, inside(tmp_path, grace_period_s=0.1, request_timeout_s=600) as service:
        clients = [await stack.enter_async_context(await service.connect()) for _ in range(5)]
        await know(service, clients[0], infer("pair", ONE))
        service.gate.shut()
        for client in clients:
            client.send(infer("pair", ONE))
        await service.gate.reached()
        await service.waits("pair", 4)
        service.lifecycle.stopping.set()
        assert await asyncio.gather(*(client.ending() for client in clients), return_exceptions=True)
        await service.lifecycle.idle()
        service.gate.open()
    assert service.gate.sizes == [1]


async def test_under_load_every_known_request_that_was_accepted_is_answered(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,))
    outcomes: Counter[str] = Counter()
    enough = asyncio.Event()

    async def ask(address: list[str]) -> None:
        client = Client(*await asyncio.open_connection(address[0], int(address[1])))
        async with client:
            while True:
                try:
                    answer = await client.ask(infer("pair", ONE))
                except (ConnectionError, asyncio.IncompleteReadError):
                    outcomes["refused"] += 1
                    return
                outcomes[str(answer.status)] += 1
                if outcomes["200"] >= 500:
                    enough.set()
                if answer.status != 200 or answer.headers.get("connection") == "close":
                    return

    with running(tmp_path, log_level="debug") as process:
        address = process.http.removeprefix("http://").split(":")
        async with asyncio.TaskGroup() as clients:
            for _ in range(16):
                clients.create_task(ask(address))
            await asyncio.wait_for(enough.wait(), 60)
            process.terminate()
        assert await asyncio.to_thread(process.exit_code) == 0
        logged = Counter(re.findall(r" http request: (\S+) in ", process.stderr()))
    assert outcomes.keys() <= {"200", "503", "refused"}
    assert logged["200"] == outcomes["200"]
    assert logged.keys() <= {"200", "503"}
