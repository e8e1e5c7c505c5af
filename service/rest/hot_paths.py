"""Inference and classification without the framework's detour: most requests are one of the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class HotPaths:
    """ASGI application: routes that are matched and called directly, in front of one that has all routes.

    Args:
        others: what has every other path and method.
        routes: each is for POST.
        handlers: what makes an answer of an exception, by its type; the last resort is `Exception`'s.
    """

    def __init__(self, others: ASGIApp, routes: Sequence[Route], handlers: Mapping[Any, ExceptionHandler]) -> None:
        self._others = others
        self._handlers = handlers
        self._whole = {route.path: route.endpoint for route in routes if not route.param_convertors}
        self._patterns = [(route.path_regex, route.endpoint) for route in routes if route.param_convertors]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await self._others(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except Exception as error:
            handler = next(self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers)
            response = await handler(request, error)  # type: ignore[arg-type, misc]
        await response(scope, receive, send)

    def _endpoint(self, scope: Scope) -> Endpoint | None:
        path = scope["path"]
        if endpoint := self._whole.get(path):
            scope["path_params"] = {}
            return endpoint
        for pattern, endpoint in self._patterns:
            if found := pattern.match(path):
                scope["path_params"] = found.groupdict()
                return endpoint
        return None
