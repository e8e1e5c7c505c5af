"""The composition root: builds the parts, starts them, stops them. The only module that knows everyone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from tritonclient.grpc import service_pb2 as pb

from service.backends.engine import Engine
from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.backends.triton import TritonEngine
from service.cuda_memory import CudaRuntime
from service.errors import StartError
from service.fronts.fronts import Fronts
from service.gpu_metrics import gpu_metrics
from service.lifecycle import Lifecycle
from service.listeners import Listeners, listeners, spans_of
from service.listening import is_loopback
from service.log_settings import LogSettings
from service.model_states import ModelStates
from service.protocol import statistics_of
from service.repository import Repository
from service.rest.application import create_metrics_application
from service.rest.connection import HttpConnection
from service.rest.server import http_server
from service.settings import Settings
from service.shared_memory import SharedMemory
from service.tegra_metrics import TegraMetrics
from service.telemetry import Telemetry, log
from service.trace_settings import TraceSettings
from service.tracing import Tracing
from service.trial_metrics import TrialMetrics
from service.triton_metrics import TritonMetrics

CLOSE_S = 2.0
"""How long sessions may take to end, at the stop, before what they wait for is ended."""
TRITON_POLL_INTERVAL_S = 1.0
OPEN_TO_EVERYONE = (
    "whoever reaches this address is answered; set FOVEA_API_KEYS or FOVEA_TLS_CLIENT_CA, or FOVEA_HOST=127.0.0.1"
)


@dataclass(frozen=True)
class Running:
    """A service that has tried to load every model, as `on_started` sees it.

    Attributes:
        open_to_everyone: whether other machines are answered, whoever they are.
    """

    repository: Repository
    http_address: str
    grpc_address: str
    metrics_address: str
    open_to_everyone: bool


async def run(settings: Settings, on_started: Callable[[Running], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        StartError: a port is taken, the execution provider or the model repository is not there.
    """
    changes_allowed = settings.log_and_trace_changes
    log_settings = LogSettings(settings.log_format, settings.log_level, changes_allowed=changes_allowed)
    tracing = Tracing(settings.trace_file)
    # Fronts have their own: the engine has no requests.
    spans = spans_of(settings) if settings.front_processes == 1 else None
    lifecycle, telemetry, changed = Lifecycle(), Telemetry(tracing, spans), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifecycle.stopping.set)

    disturbed = asyncio.Event()
    engine = _engine(settings, on_disturbance=partial(_set_from_thread, disturbed, loop))
    repository = Repository(
        settings.model_repository,
        engine,
        max_queue_size=settings.max_queue_size,
        default_model=settings.default_model,
        wanted=_wanted(settings),
        on_batch=telemetry.on_batch,
        on_served=telemetry.on_served,
        on_withdrawn=telemetry.on_withdrawn,
        on_change=changed.set,
        on_trial=TrialMetrics(telemetry.registry).observe,
    )
    telemetry.registry.register(TritonMetrics(repository.catalogue))
    telemetry.registry.register(ModelStates(repository.catalogue, lifecycle))
    memory = SharedMemory(
        system=settings.system_shared_memory, cuda=CudaRuntime() if settings.cuda_shared_memory else None
    )
    trace_settings = TraceSettings(tracing, repository.catalogue, changes_allowed=changes_allowed)

    async def counted(model: str, version: str) -> pb.ModelStatisticsResponse:
        return statistics_of(repository.catalogue, model, version)

    async def own_page(accept: str) -> tuple[bytes, str]:
        return await asyncio.to_thread(telemetry.page, accept)

    async with AsyncExitStack() as stack:
        if spans:
            stack.push_async_callback(asyncio.to_thread, spans.close)
        stack.callback(tracing.close)
        stack.callback(memory.close)
        stack.push_async_callback(_close, repository, engine)
        if settings.execution_provider == "cuda":
            _register_accelerator(settings.device_id, telemetry, stack)
        fronts: Fronts | None = None
        if settings.front_processes > 1:
            fronts = Fronts(repository, counted, telemetry, lifecycle, changed, settings)
        metrics = await stack.enter_async_context(
            http_server(
                create_metrics_application(fronts.page if fronts else own_page, lifecycle),
                "metrics",
                settings.metrics_port,
                settings,
                HttpConnection,
            )
        )
        serving: Fronts | Listeners
        if fronts:
            if not await _unless_stopped(stack.enter_async_context(fronts), lifecycle):
                return
            serving = fronts
        else:
            serving = await stack.enter_async_context(
                listeners(
                    repository.catalogue,
                    repository,
                    counted,
                    memory,
                    log_settings,
                    trace_settings,
                    telemetry,
                    lifecycle,
                    changed,
                    settings,
                    shared=False,
                )
            )

        if not await _unless_stopped(repository.start(), lifecycle):
            return
        for problem in repository.catalogue.problems():
            log.error("%s", problem)
        lifecycle.started(repository.blocking)
        if fronts:
            # Whoever is told that it serves is answered so by every front.
            await fronts.publish()
        else:
            changed.set()
        # What is there by now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        everyone = not (settings.api_keys or settings.tls_client_ca or is_loopback(settings.host))
        if everyone:
            log.warning("FOVEA_HOST=%s: %s", settings.host, OPEN_TO_EVERYONE)
        on_started(Running(repository, serving.http_address, serving.grpc_address, metrics.address, everyone))

        if settings.backend == "triton":
            await _poll(repository, TRITON_POLL_INTERVAL_S, disturbed, lifecycle)
        elif settings.model_control_mode == "poll":
            await _poll(repository, settings.poll_interval_s, disturbed, lifecycle)
        await lifecycle.stopping.wait()
        log.info("stopping: requests in flight have up to %g s", settings.grace_period_s)
        await serving.drain(settings.grace_period_s, engine.close)


def _engine(settings: Settings, *, on_disturbance: Callable[[], None]) -> Engine:
    if settings.backend == "triton":
        if not settings.triton_address:
            raise StartError("FOVEA_BACKEND=triton: FOVEA_TRITON_ADDRESS must be set, host and port of Triton's gRPC")
        if settings.model_control_mode != "none":
            raise StartError(
                f"FOVEA_MODEL_CONTROL_MODE={settings.model_control_mode}: with FOVEA_BACKEND=triton it must be none; "
                "what Triton has loaded is served"
            )
        if settings.execution_provider != "cpu":
            raise StartError(
                f"FOVEA_EXECUTION_PROVIDER={settings.execution_provider}: with FOVEA_BACKEND=triton it is Triton's to "
                "decide; leave it unset"
            )
        return TritonEngine(
            settings.triton_address,
            shared_memory=settings.triton_shared_memory,
            timeout_s=settings.request_timeout_s,
            on_disturbance=on_disturbance,
        )
    return OnnxRuntimeEngine(settings.execution_provider, device_id=settings.device_id)


def _register_accelerator(device_id: int, telemetry: Telemetry, stack: AsyncExitStack) -> None:
    """Metrics of the GPU in use, or of the Jetson board that it is part of."""
    if shutil.which("tegrastats"):
        board = TegraMetrics()
        telemetry.registry.register(board)
        following = asyncio.create_task(board.follow())
        stack.push_async_callback(asyncio.wait, {following})
        stack.callback(following.cancel)
    elif gpu := gpu_metrics(device_id):
        telemetry.registry.register(gpu)


def _set_from_thread(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    # An engine's last words may come after the loop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


async def _close(repository: Repository, engine: Engine) -> None:
    """An engine that hangs is not waited for: no request is left by now that somebody waits for."""
    closing = asyncio.create_task(repository.close())
    await asyncio.wait({closing}, timeout=CLOSE_S)
    engine.close()
    await closing


def _wanted(settings: Settings) -> list[str] | None:
    """The models to be loaded at start; None: all."""
    if settings.model_control_mode != "explicit" or settings.load_models == "*":
        return None
    return [name.strip() for name in settings.load_models.split(",") if name.strip()]


async def _poll(repository: Repository, interval_s: float, disturbed: asyncio.Event, lifecycle: Lifecycle) -> None:
    """Follow the folder and the engine until the service stops; at once where the engine is disturbed."""
    stopped = asyncio.create_task(lifecycle.stopping.wait())
    while True:
        due = asyncio.create_task(disturbed.wait())
        await asyncio.wait({stopped, due}, timeout=interval_s, return_when=asyncio.FIRST_COMPLETED)
        due.cancel()
        disturbed.clear()
        polling = asyncio.create_task(repository.poll())
        await asyncio.wait({stopped, polling}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            polling.cancel()
            return
        if error := polling.exception():
            log.error("polling failed, and will be tried again: %s", error)


async def _unless_stopped(work: Awaitable[object], lifecycle: Lifecycle) -> bool:
    """Wait for the work; False when the service was told to stop before it was done, and it was cancelled."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.create_task(lifecycle.stopping.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait({working})
    return False
