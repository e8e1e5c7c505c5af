"""A front process: the service's listeners, over an engine in another process."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack

from prometheus_client import Metric
from tritonclient.grpc import service_pb2 as pb

from service.errors import FoveaError, StartError
from service.fronts.arena import Arena
from service.fronts.link import Link
from service.fronts.remote_batcher import RemoteRequests
from service.fronts.snapshot import Mirror, Snapshot
from service.lifecycle import Lifecycle
from service.listeners import Listeners, listeners, spans_of
from service.loading import ServedVersion
from service.log_settings import LogSettings
from service.settings import Settings
from service.shared_memory import SharedMemory
from service.telemetry import Telemetry
from service.trace_settings import TraceSettings
from service.tracing import Tracing
from service.trial_metrics import TrialMetrics


class Front:
    """What the engine calls.

    Args:
        requests: those that the engine has.

    Attributes:
        gone: set once the engine has hung up.
    """

    def __init__(self, requests: RemoteRequests, stack: AsyncExitStack) -> None:
        self._requests = requests
        self._stack = stack
        self._mirror: Mirror
        self._lifecycle = Lifecycle()
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._settings: Settings
        self._log_settings: LogSettings
        self._tracing: Tracing
        self._telemetry: Telemetry
        self._listeners: Listeners
        self.gone = asyncio.Event()
        self._link = Link(
            requests.handlers(),
            {
                "begin": self.begin,
                "publish": self.publish,
                "listen": self.listen,
                "families": self.families,
                "drain": self.drain,
            },
            self._on_lost,
        )
        requests.link = self._link

    async def connect(self, link: socket.socket) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=link)

    async def begin(self, settings: Settings) -> None:
        """Have all that it takes to know the models.

        Raises:
            FoveaError: what a setting asks for is not installed.
        """
        self._settings = settings
        self._log_settings = LogSettings(settings.log_format, settings.log_level, changes_allowed=False)
        self._tracing = Tracing(None)
        try:
            spans = spans_of(settings)
        except StartError as error:
            raise FoveaError(str(error)) from error
        if spans:
            self._stack.push_async_callback(asyncio.to_thread, spans.close)
        self._telemetry = Telemetry(self._tracing, spans)
        self._mirror = Mirror(self._requests, TrialMetrics(self._telemetry.registry).observe)

    async def publish(self, snapshot: Snapshot) -> None:
        """Know the models as they are now."""
        for served in self._mirror.take(snapshot):
            self._close(served)
        if snapshot.blocking is not None:
            self._lifecycle.started(lambda: list(self._mirror.blocking or ()))
        self._changed.set()

    async def listen(self) -> tuple[str, str]:
        """Listen; the addresses of HTTP and gRPC.

        Raises:
            FoveaError: a port cannot be listened on.
        """
        try:
            self._listeners = await self._stack.enter_async_context(
                listeners(
                    self._mirror.catalogue,
                    self,
                    self._counted,
                    SharedMemory(system=False, cuda=None),
                    self._log_settings,
                    TraceSettings(self._tracing, self._mirror.catalogue, changes_allowed=False),
                    self._telemetry,
                    self._lifecycle,
                    self._changed,
                    self._settings,
                    shared=True,
                )
            )
        except StartError as error:
            raise FoveaError(str(error)) from error
        return self._listeners.http_address, self._listeners.grpc_address

    async def families(self) -> list[Metric]:
        """What this front has counted."""
        return await asyncio.to_thread(self._telemetry.families)

    async def drain(self, grace_period_s: float) -> None:
        """Answer the requests in flight; whoever waits too long for the engine is failed by the engine."""
        self._lifecycle.stopping.set()
        self._changed.set()
        await self._listeners.drain(grace_period_s, lambda: None)

    async def load(self, name: str, *, override: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """As the engine's repository; every front knows the model when it returns."""
        await self._link.call("load", name, override, files)

    async def unload(self, name: str) -> None:
        """As the engine's repository; every front has forgotten the model when it returns."""
        await self._link.call("unload", name)

    async def _counted(self, model: str, version: str) -> pb.ModelStatisticsResponse:
        answer = await self._link.call("statistics", model, version)
        return pb.ModelStatisticsResponse.FromString(answer)

    def _close(self, served: ServedVersion) -> None:
        task = asyncio.create_task(served.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _on_lost(self) -> None:
        self._lifecycle.stopping.set()
        self._requests.lost()
        self.gone.set()


async def run(link: socket.socket, memory: int) -> None:
    """Serve until the engine hangs up; signals are for the engine, which tells its fronts.

    Args:
        memory: the descriptor of the arena's.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    async with AsyncExitStack() as stack:
        front = Front(RemoteRequests(Arena(memory)), stack)
        await front.connect(link)
        await front.gone.wait()
