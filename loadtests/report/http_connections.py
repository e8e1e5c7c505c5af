"""An HTTP/1.1 client for an event loop that takes little processor time from the service beside it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httptools

TIMEOUT_S = 60.0


class HttpConnections:
    """Sends the same kind of request over connections that stay open, as many as there are requests unanswered.

    Args:
        url: of http or https.
        content_type: of the bodies.
    """

    def __init__(self, url: str, content_type: str) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: {content_type}\r\n".encode()
        self._idle: list[_Connection] = []

    async def post(self, body: bytes) -> str | None:
        """What kept the request from being answered with a status 2xx, or None."""
        try:
            connection = self._take() or await self._connect()
            status, content = await connection.ask(self._head + b"content-length: %d\r\n\r\n" % len(body) + body)
        except (OSError, httptools.HttpParserError) as error:
            return f"{type(error).__name__}: {error}"
        if connection.open:
            self._idle.append(connection)
        return None if 200 <= status < 300 else f"{status}: {content.decode(errors='replace')}"

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def _take(self) -> _Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls or None)
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.open = True
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._fail(error if isinstance(error, OSError) else ConnectionError("closed before the answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            OSError: the connection ended before it, or it took too long.
            HttpParserError: it is not HTTP.
        """
        loop = asyncio.get_running_loop()
        self._answer, self._body = loop.create_future(), b""
        timeout = loop.call_later(TIMEOUT_S, self._fail, TimeoutError(f"no answer in {TIMEOUT_S:g} s"))
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            timeout.cancel()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.open = False
            self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))

    def _fail(self, error: Exception) -> None:
        self.open = False
        self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_exception(error)
