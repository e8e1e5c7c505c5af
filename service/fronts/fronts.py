"""The front processes, as the engine sees them: started, told what changes, drained, and replaced when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any, Self

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from tritonclient.grpc import service_pb2 as pb

from service.errors import FoveaError, StartError
from service.fronts.arena import mapped, memory_file
from service.fronts.front_requests import FrontRequests
from service.fronts.link import Link
from service.fronts.metric_sums import Sums, summed
from service.fronts.snapshot import Snapshot, snapshot_of
from service.lifecycle import Lifecycle
from service.listening import reserve
from service.loading import ServedVersion
from service.repository import Repository
from service.settings import Settings
from service.telemetry import Telemetry

log = logging.getLogger("fovea.fronts")

ARENA_BYTES = 256 * 2**20
"""Of each front; only what was ever used of it takes memory."""
START_S = 60.0
"""How long a front may take to listen."""
RESTART_S = 1.0
"""Between two tries to replace a front that died."""
HEED_S = 10.0
"""How long a front may take to know what has changed."""
ANSWER_S = 2.0
"""How long a front may take to tell what it has counted, and to end once it has drained."""


class FrontProcess:
    """One front, which has been started by `spawn`.

    Attributes:
        requests: those that it has sent.
        counted: what it said last that it has counted.
    """

    def __init__(self, process: Process, link: Link, requests: FrontRequests) -> None:
        self.process = process
        self.link = link
        self.requests = requests
        self.counted: list[Metric] = []
        self.listens = False

    @classmethod
    async def spawn(cls, calls: dict[str, Callable[..., Awaitable[Any]]]) -> Self:
        """A new one, which knows nothing yet.

        Args:
            calls: what it may ask of the engine.
        """
        with ExitStack() as kept, ExitStack() as given:
            here, there = socket.socketpair()
            # Where this fails the process may be there all the same: it ends when nobody is at this end.
            kept.callback(here.close)
            given.callback(there.close)
            descriptor = memory_file(ARENA_BYTES)
            given.callback(os.close, descriptor)
            requests = FrontRequests(mapped(descriptor))
            link = requests.link = Link(requests.handlers(), calls, requests.lost)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "service.fronts",
                str(there.fileno()),
                str(descriptor),
                pass_fds=(there.fileno(), descriptor),
                stdout=asyncio.subprocess.DEVNULL,
            )
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=here)
            kept.pop_all()
        return cls(process, link, requests)

    async def begin(self, settings: Settings) -> None:
        """Have it all but listen, and know no models."""
        await self.link.call("begin", settings)

    async def listen(self) -> tuple[str, str]:
        """The addresses of its HTTP and gRPC, on which it listens from now on."""
        addresses: tuple[str, str] = await self.link.call("listen")
        self.listens = True
        return addresses

    async def count(self) -> None:
        """Have it say what it has counted; where it does not, what it said last stays."""
        if not self.listens:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                counted = await self.link.call("families")
        except (FoveaError, TimeoutError) as error:
            log.warning("a front does not say what it has counted: %s", error)
            return
        if self.listens:
            self.counted = counted

    def bury(self) -> list[Metric]:
        """It has died: what it had counted, which no longer counts here. Of requests in flight, say, it has none."""
        self.listens = False
        self.link.close()
        counted, self.counted = self.counted, []
        return [family for family in counted if family.type != "gauge"]

    async def publish(self, snapshot: Snapshot) -> None:
        """Have it know what is there now. One that does not answer is ended, and so replaced: a load waits for it."""
        try:
            async with asyncio.timeout(HEED_S):
                await self.link.call("publish", snapshot)
        except TimeoutError:
            log.error("a front has not answered for %g s: it is ended", HEED_S)
            self.kill()
        except FoveaError:
            log.debug("a front has gone while it was told something")

    async def drain(self, grace_period_s: float) -> None:
        """Have it answer what it has, and refuse the rest."""
        if not self.listens:
            return
        with contextlib.suppress(FoveaError):  # It has gone, and has nothing to answer.
            await self.link.call("drain", grace_period_s)

    async def end(self) -> None:
        """Hang up, and wait for its end."""
        self.link.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        self.link.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Fronts:
    """Async context manager: within it the fronts listen.

    Args:
        counted: the statistics of a version, of a model, or of all.
        changed: set whenever a front must be told something; nobody else waits for it.

    Attributes:
        http_address, grpc_address: where they all listen.

    Raises:
        StartError: a setting is not for several fronts.
    """

    def __init__(
        self,
        repository: Repository,
        counted: Callable[[str, str], Awaitable[pb.ModelStatisticsResponse]],
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        changed: asyncio.Event,
        settings: Settings,
    ) -> None:
        for name in ("trace_file", "log_and_trace_changes", "system_shared_memory", "cuda_shared_memory"):
            if getattr(settings, name):
                raise StartError(
                    f"FOVEA_FRONT_PROCESSES={settings.front_processes}: FOVEA_{name.upper()} is for one process that "
                    "does all; leave it unset, or set FOVEA_FRONT_PROCESSES=1"
                )
        self._repository = repository
        self._counted = counted
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._changed = changed
        self._settings = settings
        self._fronts: dict[int, FrontProcess] = {}
        self._of_the_dead: list[Metric] = []
        self._numbers: dict[ServedVersion, int] = {}
        self._next_number = count()
        self._publishing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._reserved: list[socket.socket] = []
        self.http_address = self.grpc_address = ""

    async def __aenter__(self) -> Self:
        settings = self._settings
        for what, port in (("http", settings.http_port), ("grpc", settings.grpc_port)):
            self._reserved.append(reserve(what, settings.host, port))
        ports = [reserved.getsockname()[1] for reserved in self._reserved]
        self._settings = settings.model_copy(update={"http_port": ports[0], "grpc_port": ports[1]})
        indices = range(settings.front_processes)
        try:
            addresses = await asyncio.gather(*map(self._start, indices), return_exceptions=True)
            for found in addresses:
                if isinstance(found, BaseException):
                    raise found
                self.http_address, self.grpc_address = found
        except BaseException:
            await self._end()
            raise
        self._tasks = [asyncio.create_task(self._replace(index)) for index in indices]
        self._tasks.append(asyncio.create_task(self._follow()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The metrics of the whole service, in the format that a client accepts, and that format's media type."""
        await asyncio.gather(*(front.count() for front in self._fronts.values()))
        # At one moment: a front that dies is in one of the two.
        counted = [*(front.counted for front in self._fronts.values()), self._of_the_dead]
        return await asyncio.to_thread(self._encoded, accept, counted)

    def _encoded(self, accept: str, counted: list[list[Metric]]) -> tuple[bytes, str]:
        encode, media_type = choose_encoder(accept)
        return encode(Sums([self._telemetry.registry.collect(), *counted])), media_type

    async def drain(self, grace_period_s: float, give_up: Callable[[], None]) -> None:
        """Answer the requests in flight, and refuse new ones.

        Args:
            give_up: ends what requests wait for that have no answer within the grace period.
        """
        self._stop_tasks()
        draining = [asyncio.create_task(front.drain(grace_period_s)) for front in self._fronts.values()]
        _, late = await asyncio.wait(draining, timeout=grace_period_s)
        if late:
            give_up()
            await asyncio.wait(late, timeout=2 * ANSWER_S)

    def _calls(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {"load": self._load, "unload": self._unload, "statistics": self._statistics}

    async def _load(self, name: str, override: str | None, files: Mapping[str, bytes] | None) -> None:
        try:
            await self._repository.load(name, override=override, files=files)
        finally:
            await self.publish()

    async def _unload(self, name: str) -> None:
        await self._repository.unload(name)
        await self.publish()

    async def _statistics(self, model: str, version: str) -> bytes:
        statistics: bytes = (await self._counted(model, version)).SerializeToString()
        return statistics

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.publish()
            except Exception:
                log.exception("the fronts could not be told what has changed")

    async def publish(self) -> None:
        """Tell every front what is there now; they all know it when this returns."""
        async with self._publishing:
            await asyncio.gather(*(front.publish(self._snapshot(front.requests)) for front in self._fronts.values()))

    def _snapshot(self, requests: FrontRequests) -> Snapshot:
        """What is there now, which the front with these requests is about to know."""
        catalogue = self._repository.catalogue
        self._numbers = {
            served: self._numbers[served] if served in self._numbers else next(self._next_number)
            for served in catalogue.served()
        }
        for served, number in self._numbers.items():
            requests.offer(number, served)
        blocking = self._repository.blocking() if self._lifecycle.has_started else None
        return snapshot_of(catalogue, self._numbers, blocking)

    async def _start(self, index: int) -> tuple[str, str]:
        """Start a front; the addresses of its HTTP and gRPC.

        It knows what is there before it listens, and is told of every change from then on: when a load or an unload is
        answered, this front knows of it, too.

        Raises:
            StartError: it does not listen; nothing of it is left.
        """
        try:
            async with asyncio.timeout(START_S):
                front = await FrontProcess.spawn(self._calls())
                try:
                    await front.begin(self._settings)
                    async with self._publishing:
                        self._fronts[index] = front
                        await front.publish(self._snapshot(front.requests))
                    return await front.listen()
                except BaseException:
                    lost = front.link.lost
                    front.kill()
                    raise
        except TimeoutError:
            raise StartError(f"a front process did not listen within {START_S:g} s, and was ended") from None
        except FoveaError as error:
            if lost:
                raise StartError("a front process ended before it listened; what it logged says why") from None
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"a front process cannot be started: {error}") from error

    async def _replace(self, index: int) -> None:
        """Start another front whenever one has died."""
        while True:
            front = self._fronts[index]
            code = await front.process.wait()
            log.error("front process %s ended with code %s: its requests are lost; it is replaced", index + 1, code)
            self._of_the_dead = summed([self._of_the_dead, front.bury()])
            while True:
                try:
                    await self._start(index)
                    break
                except StartError as error:
                    log.error("front process %s cannot be replaced, and will be tried again: %s", index + 1, error)
                    await asyncio.sleep(RESTART_S)

    def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _end(self) -> None:
        self._stop_tasks()
        await asyncio.gather(*(front.end() for front in self._fronts.values()))
        for reserved in self._reserved:
            reserved.close()
