"""The server that carries an HTTP application: uvicorn's, in the service's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from service.listening import address_of, cannot_listen
from service.rest.connection import HttpConnection
from service.settings import Settings
from service.tls import Tls


class HttpServer(uvicorn.Server):
    """A server that answers, at its address."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self.address = address

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`, which tells every part in its order."""
        yield


@asynccontextmanager
async def http_server(
    application: ASGIApp,
    what: str,
    port: int,
    settings: Settings,
    connection: Callable[..., HttpConnection],
    tls: Tls | None = None,
    *,
    shared: bool = False,
) -> AsyncIterator[HttpServer]:
    """Serve until the context ends.

    Args:
        what: the port's part of its setting's name.
        shared: whether other processes listen on the port too.

    Raises:
        StartError: the port cannot be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise cannot_listen(what, settings.host, port, error) from error
    config = uvicorn.Config(
        application,
        http=partial(connection, max_connections=settings.max_connections),  # type: ignore[arg-type]  # uvicorn calls it
        ssl_context_factory=(lambda *_: tls.context) if tls else None,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("x-content-type-options", "nosniff")],
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        # For the next request there is as much time as for the first.
        timeout_keep_alive=int(HttpConnection.patience_s),
    )
    server = HttpServer(config, address_of(settings.host, listener.getsockname()[1]))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield server
    finally:
        server.should_exit = True
        await serving
        for open_still in list(server.server_state.connections):
            assert isinstance(open_still, HttpConnection)
            open_still.give_up()
