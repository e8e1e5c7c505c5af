"""A client that goes away takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.rest.connection import CONNECTION, HttpConnection
from service.telemetry import RequestRecord, Telemetry


@asynccontextmanager
async def cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the work inside when the client goes away, so that it costs no inference.

    Raises:
        ClientDisconnect: it did.
    """
    work = asyncio.current_task()
    assert work is not None
    connection: HttpConnection = request.scope["state"][CONNECTION]
    if connection.gone:
        raise ClientDisconnect
    connection.on_gone = work.cancel
    try:
        yield
        if connection.gone:
            await asyncio.sleep(0)  # Here the cancellation arrives that came too late for the work.
    except asyncio.CancelledError:
        if connection.gone and not work.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        connection.on_gone = None


async def answered(telemetry: Telemetry, answer: Callable[[RequestRecord], Awaitable[Response]]) -> Response:
    """A request's answer, counted; one whose client went away is counted as that."""
    with telemetry.request("http") as record:
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
