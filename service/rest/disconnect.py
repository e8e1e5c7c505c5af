"""A client that goes away takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.telemetry import RequestRecord, Telemetry


@asynccontextmanager
async def cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the work inside when the client goes away, so that it costs no inference.

    Raises:
        ClientDisconnect: it did.
    """
    work = asyncio.current_task()
    assert work is not None

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        work.cancel("the client disconnected")

    watcher = asyncio.create_task(watch())
    try:
        yield
        if watcher.done():
            await asyncio.sleep(0)  # Here the cancellation arrives that came too late for the work.
    except asyncio.CancelledError:
        if watcher.done() and not work.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()


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
