"""How fronts are started and replaced: the engine's side, before fronts that are no processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from tritonclient.grpc import service_pb2 as pb

from service import app
from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.errors import FoveaError, StartError
from service.fronts import fronts
from service.fronts.arena import mapped, memory_file
from service.fronts.front_requests import FrontRequests
from service.fronts.fronts import FrontProcess, Fronts
from service.fronts.link import Link
from service.fronts.snapshot import Snapshot
from service.lifecycle import Lifecycle
from service.repository import Repository
from service.settings import Settings
from service.telemetry import IN_FLIGHT, Telemetry
from service.tracing import Tracing
from tests.repositories import write_model
from tests.service.inside import inside
from tests.service.launch import metric_of

FRONTS = 2
TIMEOUT_S = 60.0


class Front:
    """What answers as a front process would: has counted 3 requests, and has one in flight.

    Attributes:
        begins, listens: what else it does as it is asked to.
        told: every snapshot.
    """

    def __init__(self) -> None:
        self.told: list[Snapshot] = []
        self.killed = False
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.link = Link(
            {},
            {"begin": self._begin, "publish": self._publish, "listen": self._listen, "families": self._families},
            self._on_lost,
        )

    async def begins(self) -> None: ...

    async def listens(self) -> None: ...

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def end(self, code: int) -> None:
        self._code.set_result(code)
        self.link.close()

    def kill(self) -> None:
        """As a process's."""
        self.killed = True
        if self._code.done():
            raise ProcessLookupError
        self.end(-signal.SIGKILL)

    def _on_lost(self) -> None:
        if not self._code.done():
            self._code.set_result(0)

    async def _begin(self, settings: Settings) -> None:
        await self.begins()

    async def _publish(self, snapshot: Snapshot) -> None:
        self.told.append(snapshot)

    async def _listen(self) -> tuple[str, str]:
        await self.listens()
        return "http://127.0.0.1:1", "127.0.0.1:2"

    async def _families(self) -> list[Metric]:
        registry = CollectorRegistry()
        Counter("fovea_requests", "Requests.", registry=registry).inc(3)
        Gauge(IN_FLIGHT, "In flight.", ["protocol"], registry=registry).labels("http").set(1)
        return list(registry.collect())


Spawn = Callable[[], Awaitable[Front]]


class Nursery:
    """Where fronts come from.

    Attributes:
        spawn: makes the next ones.
        fronts: all that were made.
    """

    def __init__(self) -> None:
        self.fronts: list[Front] = []
        self._links: list[Link] = []
        self.spawn: Spawn = self.another

    async def another(self) -> Front:
        self.fronts.append(Front())
        return self.fronts[-1]

    async def process(self, calls: dict[str, Callable[..., Awaitable[Any]]]) -> FrontProcess:
        front = await self.spawn()
        descriptor = memory_file(4096)
        requests = FrontRequests(mapped(descriptor))
        os.close(descriptor)
        link = requests.link = Link(requests.handlers(), calls, requests.lost)
        self._links += [link, front.link]
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: link, sock=here)
        await loop.create_unix_connection(lambda: front.link, sock=there)
        return FrontProcess(front, link, requests)  # type: ignore[arg-type]

    async def close(self) -> None:
        for link in self._links:
            link.close()
        await becomes(lambda: all(link.lost for link in self._links))


async def becomes(true: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(TIMEOUT_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
async def nursery(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nursery]:
    made = Nursery()
    monkeypatch.setattr(FrontProcess, "spawn", made.process)
    monkeypatch.setattr(fronts, "RESTART_S", 0)
    yield made
    await made.close()


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Fronts]:
    write_model(folder)
    values: dict[str, Any] = {"front_processes": FRONTS, "http_port": 0, "grpc_port": 0, "model_repository": folder}
    settings = Settings(**values)
    repository = Repository(
        folder,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=100,
        default_model=None,
        on_batch=lambda model, version, record: None,
    )

    async def counted(model: str, version: str) -> pb.ModelStatisticsResponse:
        raise AssertionError(f"nobody asks for the statistics of {model} {version}")

    changed = asyncio.Event()
    async with (
        asyncio.timeout(TIMEOUT_S),
        Fronts(repository, counted, Telemetry(Tracing(None)), Lifecycle(), changed, settings) as made,
    ):
        yield made


async def all_listen(made: Fronts, nursery: Nursery, spawned: int) -> None:
    """Wait until so many have been spawned in all, and those that are there listen."""
    await becomes(lambda: len(nursery.fronts) == spawned and all(front.listens for front in made._fronts.values()))


async def page(made: Fronts) -> tuple[float, float]:
    """Requests that were counted, and those in flight."""
    text = (await made.page(""))[0].decode()
    return metric_of(text, "fovea_requests_total"), metric_of(text, IN_FLIGHT)


async def test_while_a_front_is_replaced_its_counts_are_there_once(tmp_path: Path, nursery: Nursery) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def later() -> Front:
        asked.set()
        await go_on.wait()
        return await nursery.another()

    async with started(tmp_path) as made:
        assert await page(made) == (6, 2)
        nursery.spawn = later
        nursery.fronts[0].end(1)
        await asked.wait()
        assert await page(made) == (6, 1)
        go_on.set()
        await all_listen(made, nursery, FRONTS + 1)
        assert await page(made) == (9, 2)


async def test_a_front_that_cannot_be_replaced_is_tried_again_whatever_the_reason(
    tmp_path: Path, nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [OSError("too many open files"), OSError("too many processes")]

    async def at_last() -> Front:
        if failures:
            raise failures.pop(0)
        return await nursery.another()

    async with started(tmp_path) as made:
        nursery.spawn = at_last
        nursery.fronts[1].end(1)
        await all_listen(made, nursery, FRONTS + 1)
    for reason in ("too many open files", "too many processes"):
        assert (
            f"front process 2 cannot be replaced, and will be tried again: a front process cannot be started: {reason}"
            in (caplog.text)
        )


async def test_a_new_front_knows_what_is_there_before_it_listens(tmp_path: Path, nursery: Nursery) -> None:
    listens, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Front:
        front = await nursery.another()

        async def wait() -> None:
            assert front.told
            listens.set()
            await go_on.wait()

        front.listens = wait  # type: ignore[method-assign]
        return front

    async with started(tmp_path) as made:
        assert [len(front.told) for front in nursery.fronts] == [1, 1]
        nursery.spawn = slow
        nursery.fronts[0].end(1)
        await listens.wait()
        # What changes meanwhile it is told as the others are.
        made._repository.catalogue.default_model = "another"
        await made.publish()
        assert [front.told[-1].default_model for front in nursery.fronts[1:]] == ["another", "another"]
        go_on.set()


async def test_a_front_that_hangs_as_it_starts_is_ended(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "START_S", 0.01)

    async def hanging() -> Front:
        front = await nursery.another()
        front.begins = asyncio.Event().wait  # type: ignore[method-assign,assignment]
        return front

    nursery.spawn = hanging
    with pytest.raises(StartError, match=r"a front process did not listen within 0\.01 s, and was ended"):
        async with started(tmp_path):
            pass
    assert [front.killed for front in nursery.fronts] == [True, True]


async def test_a_front_that_dies_as_it_starts_is_not_said_to_be_a_stop(tmp_path: Path, nursery: Nursery) -> None:
    async def dying() -> Front:
        front = await nursery.another()

        async def begins() -> None:
            front.end(1)

        front.begins = begins  # type: ignore[method-assign]
        return front

    nursery.spawn = dying
    with pytest.raises(StartError, match="a front process ended before it listened; what it logged says why"):
        async with started(tmp_path):
            pass


async def test_what_a_front_lacks_is_why_it_does_not_start(tmp_path: Path, nursery: Nursery) -> None:
    async def lacking() -> Front:
        front = await nursery.another()

        async def listens() -> None:
            raise FoveaError("the port is taken")

        front.listens = listens  # type: ignore[method-assign]
        return front

    nursery.spawn = lacking
    with pytest.raises(StartError, match=r"^the port is taken$"):
        async with started(tmp_path):
            pass
    assert all(front.killed for front in nursery.fronts)


async def test_every_front_is_ready_when_the_service_says_that_it_serves(tmp_path: Path, nursery: Nursery) -> None:
    write_model(tmp_path)
    async with inside(tmp_path, front_processes=FRONTS):
        assert [front.told[-1].blocking for front in nursery.fronts] == [(), ()]


async def test_a_stop_is_heeded_while_fronts_start(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifecycle, begun = Lifecycle(), list[Front]()

    async def hanging() -> Front:
        front = await nursery.another()

        async def begins() -> None:
            begun.append(front)
            await asyncio.Event().wait()

        front.begins = begins  # type: ignore[method-assign]
        return front

    nursery.spawn = hanging
    monkeypatch.setattr(app, "Lifecycle", lambda: lifecycle)
    monkeypatch.setattr(app, "LogSettings", lambda *_, **__: None)
    ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    settings = Settings(model_repository=tmp_path, front_processes=FRONTS, **ports)
    write_model(tmp_path)
    serving = asyncio.create_task(app.run(settings, lambda _: pytest.fail("it has started")))
    await becomes(lambda: len(begun) == FRONTS)
    lifecycle.stopping.set()
    async with asyncio.timeout(TIMEOUT_S / 2):
        await serving
    assert all(front.killed for front in nursery.fronts)
