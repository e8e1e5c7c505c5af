"""What listens on the service's ports, HTTP and gRPC, in one process: adapters over a catalogue of models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from tritonclient.grpc import service_pb2

from service.api_keys import ApiKeys
from service.backends.onnx_runtime import available_cores
from service.catalogue import Catalogue
from service.classifier import Classifier
from service.control import Control, Loader
from service.decoding import Decoder
from service.errors import StartError
from service.file_changes import follow, state_of
from service.images import ImageLimits
from service.inference import Inference
from service.known_requests import KnownRequests
from service.lifecycle import Lifecycle
from service.log_settings import LogSettings
from service.protocol import (
    CONTROL_EXTENSIONS,
    CUDA_SHARED_MEMORY_EXTENSION,
    LOG_AND_TRACE_EXTENSIONS,
    SYSTEM_SHARED_MEMORY_EXTENSION,
    ServiceInformation,
)
from service.rest.application import create_http_application, error_response
from service.rest.authentication import authenticated
from service.rest.connection import HttpConnection
from service.rest.full_queue import FullQueue
from service.rest.known_infer import INFER_ROUTE, KnownInfer
from service.rest.server import http_server
from service.rpc.classifier import ClassifierServicer
from service.rpc.inference import InferenceServicer
from service.rpc.known_infer import INFER_METHOD
from service.rpc.known_infer import KnownInfer as KnownCalls
from service.rpc.server import GrpcServer, grpc_server
from service.settings import Settings
from service.shared_memory import SharedMemory
from service.telemetry import Telemetry
from service.tls import tls_of
from service.trace_settings import TraceSettings

if TYPE_CHECKING:
    from service.spans import Spans

REFUSE_S = 0.5
"""How long requests are refused before connections are closed, at the stop."""
FLUSH_S = 1.0
"""How long last answers may take to leave, at the stop."""


@dataclass(frozen=True)
class Listeners:
    """Servers that answer, at their addresses."""

    http_address: str
    grpc_address: str
    grpc: GrpcServer
    lifecycle: Lifecycle

    async def drain(self, grace_period_s: float, give_up: Callable[[], None]) -> None:
        """Answer the requests in flight, and refuse new ones.

        Args:
            give_up: ends what requests wait for that have no answer within the grace period.
        """
        await self.grpc.health.enter_graceful_shutdown()
        if not await _drain(self.lifecycle, grace_period_s):
            give_up()
            await _drain(self.lifecycle, FLUSH_S)
        # What is still open is no request: health watches, streams without one.
        await self.grpc.server.stop(FLUSH_S)


def spans_of(settings: Settings) -> Spans | None:
    """What records requests as spans; None where nothing does.

    Raises:
        StartError: it is not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from service.spans import Spans
    except ImportError as error:
        raise StartError(f"FOVEA_OTLP_ENDPOINT={settings.otlp_endpoint}: {error}; install the extra 'otlp'") from error
    return Spans(settings.otlp_endpoint, sampling_ratio=settings.otlp_sampling_ratio, version=version("fovea"))


@asynccontextmanager
async def listeners(
    catalogue: Catalogue,
    loader: Loader,
    counted: Callable[[str, str], Awaitable[service_pb2.ModelStatisticsResponse]],
    memory: SharedMemory,
    log_settings: LogSettings,
    trace_settings: TraceSettings,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    readiness_changed: asyncio.Event,
    settings: Settings,
    *,
    shared: bool,
) -> AsyncIterator[Listeners]:
    """Serve until the context ends.

    Args:
        counted: the statistics of a version, of a model, or of all.
        readiness_changed: set whenever the service may be ready, or no longer.
        shared: whether other processes listen on the same ports.

    Raises:
        StartError: a port cannot be listened on, or keys or certificates are none.
    """
    key_files = [settings.api_keys] if settings.api_keys else []
    tls_files = [file for file in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) if file]
    key_state, tls_state = state_of(key_files), state_of(tls_files)
    keys = ApiKeys(settings.api_keys) if settings.api_keys else None
    tls = tls_of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    image_limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_image_frames)
    decoder = Decoder(image_limits, max_waiting=settings.max_queue_size, threads=available_cores())
    classifier = Classifier(catalogue, decoder, max_images=settings.max_images_per_request)
    inference = Inference(catalogue, decoder)
    control = Control(loader, allowed=settings.model_control_mode == "explicit")
    information = ServiceInformation(
        catalogue, counted, name=settings.server_name, allowed=_allowed_extensions(settings)
    )
    known = KnownInfer(
        KnownRequests(inference, lifecycle, telemetry, protocol="http", operation=INFER_ROUTE),
        error_response,
        request_timeout_s=settings.request_timeout_s,
    )
    full_queue = FullQueue(
        classifier, telemetry, lifecycle, error_response, max_request_bytes=settings.max_request_bytes
    )
    application = create_http_application(
        classifier,
        inference,
        catalogue,
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
        ClassifierServicer(classifier, catalogue, telemetry, lifecycle, request_timeout_s=timeout_s),
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
        stack.callback(decoder.close)
        if keys:
            stack.callback(asyncio.create_task(follow(key_files, key_state, keys.reload)).cancel)
        if tls:
            stack.callback(asyncio.create_task(follow(tls_files, tls_state, tls.reload)).cancel)
        grpc = await stack.enter_async_context(
            grpc_server(*servicers, known_calls, telemetry, lifecycle, settings, keys, tls, shared=shared)
        )

        def direct(connection: HttpConnection, body: bytes) -> bool:
            return full_queue.take(connection, body) or known.take(connection, body)

        connection = partial(HttpConnection, direct=authenticated(direct, keys) if keys else direct)
        http = await stack.enter_async_context(
            http_server(application, "http", settings.http_port, settings, connection, tls, shared=shared)
        )
        follower = asyncio.create_task(_follow_readiness(lifecycle, grpc.set_serving, readiness_changed))
        stack.callback(follower.cancel)
        yield Listeners(http.address, grpc.address, grpc, lifecycle)


def _allowed_extensions(settings: Settings) -> Iterator[str]:
    if settings.model_control_mode == "explicit":
        yield from CONTROL_EXTENSIONS
    if settings.system_shared_memory:
        yield SYSTEM_SHARED_MEMORY_EXTENSION
    if settings.cuda_shared_memory:
        yield CUDA_SHARED_MEMORY_EXTENSION
    if settings.log_and_trace_changes:
        yield from LOG_AND_TRACE_EXTENSIONS


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
