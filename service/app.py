"""The composition root: builds the parts, starts them, stops them. The only module that knows everyone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from service.api_keys import ApiKeys
from service.backends.engine import Engine
from service.backends.onnx_runtime import OnnxRuntimeEngine, available_cores
from service.backends.triton import TritonEngine
from service.classifier import Classifier
from service.control import Control
from service.cuda_memory import CudaRuntime
from service.decoding import Decoder
from service.errors import StartError
from service.file_changes import follow, state_of
from service.gpu_metrics import gpu_metrics
from service.images import ImageLimits
from service.inference import Inference
from service.known_requests import KnownRequests
from service.lifecycle import Lifecycle
from service.listening import is_loopback
from service.log_settings import LogSettings
from service.model_states import ModelStates
from service.protocol import (
    CONTROL_EXTENSIONS,
    CUDA_SHARED_MEMORY_EXTENSION,
    LOG_AND_TRACE_EXTENSIONS,
    SYSTEM_SHARED_MEMORY_EXTENSION,
    ServiceInformation,
)
from service.repository import Repository
from service.rest.application import create_http_application, create_metrics_application, error_response
from service.rest.authentication import authenticated
from service.rest.connection import HttpConnection
from service.rest.known_infer import INFER_ROUTE, KnownInfer
from service.rest.server import http_server
from service.rpc.classifier import ClassifierServicer
from service.rpc.inference import InferenceServicer
from service.rpc.known_infer import INFER_METHOD
from service.rpc.known_infer import KnownInfer as KnownCalls
from service.rpc.server import grpc_server
from service.settings import Settings
from service.shared_memory import SharedMemory
from service.tegra_metrics import TegraMetrics
from service.telemetry import Telemetry, log
from service.tls import tls_of
from service.trace_settings import TraceSettings
from service.tracing import Tracing
from service.trial_metrics import TrialMetrics
from service.triton_metrics import TritonMetrics

if TYPE_CHECKING:
    from service.spans import Spans

REFUSE_S = 0.5
"""How long requests are refused before connections are closed, at the stop."""
CLOSE_S = 2.0
"""How long sessions may take to end, at the stop, before what they wait for is ended."""
TRITON_POLL_INTERVAL_S = 1.0
OPEN_TO_EVERYONE = (
    "whoever reaches this address is answered; set FOVEA_API_KEYS or FOVEA_TLS_CLIENT_CA, or FOVEA_HOST=127.0.0.1"
)
FLUSH_S = 1.0
"""How long last answers may take to leave, at the stop."""


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
    key_files = [settings.api_keys] if settings.api_keys else []
    tls_files = [file for file in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) if file]
    key_state, tls_state = state_of(key_files), state_of(tls_files)
    keys = ApiKeys(settings.api_keys) if settings.api_keys else None
    tls = tls_of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    changes_allowed = settings.log_and_trace_changes
    log_settings = LogSettings(settings.log_format, settings.log_level, changes_allowed=changes_allowed)
    tracing = Tracing(settings.trace_file)
    spans = _spans(settings)
    lifecycle, telemetry, readiness_changed = Lifecycle(), Telemetry(tracing, spans), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifecycle.stopping.set)

    image_limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_image_frames)
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
        on_change=readiness_changed.set,
        on_trial=TrialMetrics(telemetry.registry).observe,
    )
    telemetry.registry.register(TritonMetrics(repository))
    telemetry.registry.register(ModelStates(repository, lifecycle))
    decoder = Decoder(image_limits, max_waiting=settings.max_queue_size, threads=available_cores())
    classifier = Classifier(repository, decoder, max_images=settings.max_images_per_request)
    inference = Inference(repository, decoder)
    control = Control(repository, allowed=settings.model_control_mode == "explicit")
    memory = SharedMemory(
        system=settings.system_shared_memory, cuda=CudaRuntime() if settings.cuda_shared_memory else None
    )
    trace_settings = TraceSettings(tracing, repository, changes_allowed=changes_allowed)
    information = ServiceInformation(repository, name=settings.server_name, allowed=_allowed_extensions(settings))
    known = KnownInfer(
        KnownRequests(inference, lifecycle, telemetry, protocol="http", operation=INFER_ROUTE),
        error_response,
        request_timeout_s=settings.request_timeout_s,
    )
    application = create_http_application(
        classifier,
        inference,
        repository,
        information,
        control,
        memory,
        log_settings,
        trace_settings,
        telemetry,
        lifecycle,
        known,
        keys,
        version=version("fovea"),
        request_timeout_s=settings.request_timeout_s,
        max_request_bytes=settings.max_request_bytes,
        max_images=settings.max_images_per_request,
        cors_origins=settings.cors_origins,
    )
    timeout_s = settings.request_timeout_s
    known_calls = KnownCalls(KnownRequests(inference, lifecycle, telemetry, protocol="grpc", operation=INFER_METHOD))
    servicers = (
        ClassifierServicer(classifier, repository, telemetry, lifecycle, request_timeout_s=timeout_s),
        InferenceServicer(
            inference,
            information,
            control,
            memory,
            log_settings,
            trace_settings,
            telemetry,
            lifecycle,
            known_calls if settings.grpc_transport == "native" else None,
            request_timeout_s=timeout_s,
        ),
    )

    async with AsyncExitStack() as stack:
        if spans:
            stack.push_async_callback(asyncio.to_thread, spans.close)
        stack.callback(tracing.close)
        stack.callback(decoder.close)
        stack.callback(memory.close)
        stack.push_async_callback(_close, repository, engine)
        if keys:
            stack.callback(asyncio.create_task(follow(key_files, key_state, keys.reload)).cancel)
        if tls:
            stack.callback(asyncio.create_task(follow(tls_files, tls_state, tls.reload)).cancel)
        if settings.execution_provider == "cuda":
            _register_accelerator(settings.device_id, telemetry, stack)
        metrics = await stack.enter_async_context(
            http_server(
                create_metrics_application(telemetry, lifecycle),
                "metrics",
                settings.metrics_port,
                settings,
                HttpConnection,
            )
        )
        grpc = await stack.enter_async_context(
            grpc_server(*servicers, known_calls, telemetry, lifecycle, settings, keys, tls)
        )
        direct = authenticated(known.take, keys) if keys else known.take
        connection = partial(HttpConnection, direct=direct)
        http = await stack.enter_async_context(
            http_server(application, "http", settings.http_port, settings, connection, tls)
        )

        if not await _unless_stopped(repository.start(), lifecycle):
            return
        for problem in repository.problems():
            log.error("%s", problem)
        lifecycle.started(repository.blocking)
        follower = asyncio.create_task(_follow_readiness(lifecycle, grpc.set_serving, readiness_changed))
        stack.callback(follower.cancel)
        # What is there by now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        everyone = not (keys or settings.tls_client_ca or is_loopback(settings.host))
        if everyone:
            log.warning("FOVEA_HOST=%s: %s", settings.host, OPEN_TO_EVERYONE)
        on_started(Running(repository, http.address, grpc.address, metrics.address, everyone))

        if settings.backend == "triton":
            await _poll(repository, TRITON_POLL_INTERVAL_S, disturbed, lifecycle)
        elif settings.model_control_mode == "poll":
            await _poll(repository, settings.poll_interval_s, disturbed, lifecycle)
        await lifecycle.stopping.wait()
        log.info("stopping: requests in flight have up to %g s", settings.grace_period_s)
        await grpc.health.enter_graceful_shutdown()
        if not await _drain(lifecycle, settings.grace_period_s):
            engine.close()
            await _drain(lifecycle, FLUSH_S)
        # What is still open is no request: health watches, streams without one.
        await grpc.server.stop(FLUSH_S)


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


def _spans(settings: Settings) -> Spans | None:
    if not settings.otlp_endpoint:
        return None
    try:
        from service.spans import Spans
    except ImportError as error:
        raise StartError(f"FOVEA_OTLP_ENDPOINT={settings.otlp_endpoint}: {error}; install the extra 'otlp'") from error
    return Spans(settings.otlp_endpoint, sampling_ratio=settings.otlp_sampling_ratio, version=version("fovea"))


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


def _allowed_extensions(settings: Settings) -> Iterator[str]:
    if settings.model_control_mode == "explicit":
        yield from CONTROL_EXTENSIONS
    if settings.system_shared_memory:
        yield SYSTEM_SHARED_MEMORY_EXTENSION
    if settings.cuda_shared_memory:
        yield CUDA_SHARED_MEMORY_EXTENSION
    if settings.log_and_trace_changes:
        yield from LOG_AND_TRACE_EXTENSIONS


def _wanted(settings: Settings) -> list[str] | None:
    """The models to be loaded at start; None: all."""
    if settings.model_control_mode != "explicit" or settings.load_models == "*":
        return None
    return [name.strip() for name in settings.load_models.split(",") if name.strip()]


async def _follow_readiness(
    lifecycle: Lifecycle, tell: Callable[[bool], Awaitable[None]], changed: asyncio.Event
) -> None:
    """Keep what gRPC tells of health in line with readiness."""
    told: bool | None = None
    while True:
        changed.clear()
        ready = lifecycle.not_ready is None
        if ready is not told:
            await tell(ready)
            told = ready
        await changed.wait()


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


async def _drain(lifecycle: Lifecycle, grace_period_s: float) -> bool:
    """Wait for the last answer; False when it was not there in time.

    Until then connections stay open, and new requests on them are refused.

    At least for a moment: a request that gRPC has read and not yet begun when its server stops is
    CANCELLED, which tells its client less than UNAVAILABLE does.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_period_s):
            await asyncio.sleep(REFUSE_S)
            await lifecycle.idle()
            return True
    return False


async def _unless_stopped(work: object, lifecycle: Lifecycle) -> bool:
    """Wait for the work; False when the service was told to stop before it was done."""
    working = asyncio.ensure_future(work)  # type: ignore[call-overload]
    stopped = asyncio.create_task(lifecycle.stopping.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
        return True
    await working
    return False
