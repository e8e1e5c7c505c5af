"""The HTTP applications: their routes and their one form of error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler

from service.api_keys import ApiKeys
from service.catalogue import Catalogue
from service.classifier import Classifier
from service.control import Control
from service.errors import FoveaError, UnauthenticatedError, UnsupportedEncodingError, shown
from service.inference import Inference
from service.lifecycle import Lifecycle
from service.log_settings import LogSettings
from service.protocol import ServiceInformation
from service.rest.authentication import Authentication
from service.rest.compression import WINDOW_BITS
from service.rest.cors import cors
from service.rest.health import health_routes
from service.rest.hot_paths import HotPaths
from service.rest.images import image_routes
from service.rest.known_infer import KnownInfer
from service.rest.log_and_trace import log_and_trace_routes
from service.rest.openapi import docs_routes
from service.rest.operations import operations_routes
from service.rest.protocol import protocol_routes
from service.rest.scope import RequestScope
from service.rest.shared_memory import shared_memory_routes
from service.shared_memory import SharedMemory
from service.telemetry import Telemetry
from service.trace_settings import TraceSettings

log = logging.getLogger("fovea.http")


def create_http_application(
    classifier: Classifier,
    inference: Inference,
    catalogue: Catalogue,
    information: ServiceInformation,
    control: Control,
    memory: SharedMemory,
    log_settings: LogSettings,
    trace_settings: TraceSettings,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    known: KnownInfer,
    keys: ApiKeys | None,
    *,
    version: str,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
    cors_origins: str = "",
) -> ASGIApp:
    """Args:
        keys: without one of them hardly anything is answered; None: everything is.

    Raises:
        StartError: `cors_origins` are none.
    """
    images = image_routes(
        classifier,
        telemetry,
        request_timeout_s=request_timeout_s,
        max_request_bytes=max_request_bytes,
        max_images=max_images,
    )
    protocol = protocol_routes(
        inference,
        information,
        control,
        memory,
        telemetry,
        known,
        request_timeout_s=request_timeout_s,
        max_request_bytes=max_request_bytes,
    )
    routes = [
        *images,
        *protocol,
        *shared_memory_routes(memory, request_timeout_s=request_timeout_s),
        *log_and_trace_routes(log_settings, trace_settings, request_timeout_s=request_timeout_s),
        *operations_routes(catalogue),
        *health_routes(lifecycle, with_reason=keys is None),
    ]
    handlers = _error_handlers()
    application = Starlette(
        routes=[*routes, *docs_routes(version, routes, with_keys=keys is not None)], exception_handlers=handlers
    )
    application.router.redirect_slashes = False
    hot = [*images, *(route for route in protocol if route.path.endswith("/infer"))]
    served: ASGIApp = HotPaths(application, hot, handlers)
    if keys:
        served = Authentication(served, keys, telemetry, error_response)
    if cors_origins:
        # Outside of it: a browser asks without a key whether it may send one.
        served = cors(served, cors_origins)
    return RequestScope(served, lifecycle, telemetry)


def create_metrics_application(page: Callable[[str], Awaitable[tuple[bytes, str]]], lifecycle: Lifecycle) -> ASGIApp:
    """What the operator's own programs ask, on a port of their own: Prometheus metrics, and health for probes.

    Args:
        page: every metric, in the format that a client accepts, and that format's media type.
    """

    async def metrics(request: Request) -> Response:
        content, media_type = await page(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})

    routes = [Route("/metrics", metrics), *health_routes(lifecycle, with_reason=True)]
    return Starlette(routes=routes, exception_handlers=_error_handlers())


def _error_handlers() -> Mapping[Any, ExceptionHandler]:
    return {
        FoveaError: _on_fovea_error,
        HTTPException: _on_http_error,
        ClientDisconnect: _on_disconnect,
        Exception: _on_bug,
    }


async def _on_fovea_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FoveaError)
    return error_response(error)


def error_response(error: FoveaError) -> JSONResponse:
    """The one form of every error."""
    headers = {}
    if error.retry_after_s:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, UnauthenticatedError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, UnsupportedEncodingError):
        headers["accept-encoding"] = ", ".join(WINDOW_BITS)
    return JSONResponse({"error": str(error)}, status_code=error.http_status, headers=headers)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    text = shown(f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # Nobody hears it.


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("internal error", exc_info=error)
    return JSONResponse({"error": "internal error; the log has the details"}, status_code=500)
