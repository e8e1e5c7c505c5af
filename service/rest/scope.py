"""What surrounds every HTTP request: its id, its place in the count, the refusal of new ones while stopping."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UnavailableError
from service.lifecycle import STOPPING, Lifecycle
from service.rest.headers import REQUEST_ID, by_name, caller_of
from service.telemetry import Telemetry, request_id
from service.trace_context import trace_context


class RequestScope:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, telemetry: Telemetry) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, context = caller_of(by_name(scope["headers"]))
        stopping = self._lifecycle.stopping

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (REQUEST_ID, identity.encode())]
                if stopping.is_set():
                    # Sends keep-alive clients elsewhere before the connection is closed under them.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        token = request_id.set(identity)
        traced = trace_context.set(context)
        self._lifecycle.enter()
        try:
            if stopping.is_set() and not scope["path"].startswith("/v2/health/"):
                error = UnavailableError(STOPPING)
                self._telemetry.refused("http", error)
                await _refuse(error, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            self._lifecycle.leave()
            request_id.reset(token)
            trace_context.reset(traced)


async def _refuse(error: UnavailableError, send: Send) -> None:
    body = json.dumps({"error": str(error)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(error.retry_after_s).encode()),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
