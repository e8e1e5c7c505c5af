"""API keys over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api_keys import ApiKeys, Right
from service.errors import FoveaError
from service.rest.connection import HttpConnection
from service.telemetry import Telemetry

OPEN = frozenset({"/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
"""Read without a key: what probes ask, and the page, which is the same everywhere and has a place to enter a key."""
OPEN_FOLDER = "/docs/assets/"
INFER = re.compile(r"/v1/(classify|embed)|/v2/models/[^/]+(/versions/[^/]+)?/infer|/v2/repository/index")
"""What is posted with the right to infer."""

Direct = Callable[[HttpConnection, bytes], bool]


class Authentication:
    """ASGI middleware: refuses who has no key, or one without the right, before anything is read of the body.

    Args:
        on_error: makes an answer of an error.
    """

    def __init__(
        self, app: ASGIApp, keys: ApiKeys, telemetry: Telemetry, on_error: Callable[[FoveaError], Response]
    ) -> None:
        self._app = app
        self._keys = keys
        self._telemetry = telemetry
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        right = right_for(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if right:
            try:
                self._keys.require(right, _authorization(scope["headers"]))
            except FoveaError as error:
                self._telemetry.refused("http", error)
                await self._on_error(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def right_for(method: str, path: str) -> Right | None:
    """The right that a request takes; None: no key. What is not known to take less takes `control`."""
    if method in ("GET", "HEAD"):
        return None if path in OPEN or path.startswith(OPEN_FOLDER) else Right.INFER
    return Right.INFER if method == "POST" and INFER.fullmatch(path) else Right.CONTROL


def authenticated(direct: Direct, keys: ApiKeys) -> Direct:
    """What a connection offers inference to, with a key that may; any other is the application's to refuse."""

    def take(connection: HttpConnection, body: bytes) -> bool:
        return keys.allow(Right.INFER, _authorization(connection.headers)) and direct(connection, body)

    return take


def _authorization(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The first one, as for every header."""
    return next((value.decode("latin-1") for name, value in headers if name == b"authorization"), "")
