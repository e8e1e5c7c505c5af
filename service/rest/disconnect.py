"""A client that goes away takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request


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
