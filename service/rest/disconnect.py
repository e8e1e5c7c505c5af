"""A client that goes away takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.rest.connection import CONNECTION, HttpConnection
from service.telemetry import RequestRecord, Telemetry


class CancelledOnDisconnect:
    """Async context manager: cancels the work inside when the client goes away, so that it costs no inference.

    Raises:
        ClientDisconnect: it did.
    """

    def __init__(self, request: Request) -> None:
        self._connection: HttpConnection = request.scope["state"][CONNECTION]

    async def __aenter__(self) -> None:
        work = asyncio.current_task()
        assert work is not None
        if self._connection.gone:
            raise ClientDisconnect
        self._work = work
        self._connection.on_gone = work.cancel

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._connection.gone:
                await asyncio.sleep(0)  # Here the cancellation arrives that came too late for the work.
        except asyncio.CancelledError as late:
            kind, error = type(late), late
        finally:
            self._connection.on_gone = None
        if isinstance(error, asyncio.CancelledError):
            if self._connection.gone and not self._work.uncancel():
                raise ClientDisconnect from None
            raise error


async def answered(
    telemetry: Telemetry, route: str, answer: Callable[[RequestRecord], Awaitable[Response]]
) -> Response:
    """A request's answer, counted; one whose client went away is counted as that."""
    with telemetry.request("http", route) as record:
        try:
            response = await answer(record)
        except ClientDisconnect:
            record.code = "499"
            return Response(status_code=499)  # Nobody hears it.
    if trace := record.trace:

        async def sent() -> None:
            trace.sent()

        response.background = BackgroundTask(sent)
    return response
