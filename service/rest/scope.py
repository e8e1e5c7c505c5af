"""What surrounds every HTTP request: its id, its place in the count, the refusal of new ones while stopping."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UnavailableError
from service.lifecycle import STOPPING, Lifecycle
from service.telemetry import Telemetry, accept_request_id, request_id
from service.trace_context import TRACEPARENT, TRACESTATE, parse, trace_context

PARENT, STATE = TRACEPARENT.encode(), TRACESTATE.encode()


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
        given = parent = state = b""
        # Of several of one name the first counts.
        for name, value in reversed(scope["headers"]):
            if name == b"x-request-id":
                given = value
            elif name == PARENT:
                parent = value
            elif name == STATE:
                state = value
        identity = accept_request_id(given.decode("latin-1"))
        stopping = self._lifecycle.stopping

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode())]
                if stopping.is_set():
                    # Sends keep-alive clients elsewhere before the connection is closed under them.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        token = request_id.set(identity)
        context = parse(parent.decode("latin-1"), state.decode("latin-1")) if parent else None
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
