from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.report import http_connections
from loadtests.report.http_connections import HttpConnections

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers every request with the next answer; None: ends the connection.

    Attributes:
        together: so many requests are answered at the same time.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self.together: asyncio.Barrier | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0)
                if self.together:
                    await self.together.wait()
                if answer is None:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def connected(*answers: bytes | None) -> AsyncIterator[tuple[Server, HttpConnections]]:
    server = Server(*answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connections = HttpConnections(f"http://127.0.0.1:{port}/v1/classify", "image/jpeg")
        try:
            yield server, connections
        finally:
            connections.close()


async def test_a_request_and_its_answer() -> None:
    async with connected(OK, BUSY) as (server, connections):
        assert await connections.post(b"pixels") is None
        assert await connections.post(b"more") == "503: busy"
    assert server.requests[0].startswith(b"POST /v1/classify HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"content-type: image/jpeg\r\n" in server.requests[0]
    assert [request.rpartition(b"\r\n\r\n")[2] for request in server.requests] == [b"pixels", b"more"]
    assert server.connections == 1


async def test_so_many_connections_as_requests_unanswered() -> None:
    async with connected(OK, OK, OK, OK) as (server, connections):
        server.together = asyncio.Barrier(3)
        assert await asyncio.gather(*(connections.post(b"x") for _ in range(3))) == [None] * 3
        server.together = None
        assert await connections.post(b"x") is None
    assert server.connections == 3


async def test_after_a_last_answer_there_is_another_connection() -> None:
    async with connected(LAST, OK) as (server, connections):
        assert await connections.post(b"x") is None
        assert await connections.post(b"x") is None
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(None, "ConnectionError: closed before the answer"), (b"SSH-2.0-Example\r\n\r\n", "HttpParser")],
)
async def test_what_is_no_answer_is_told_and_ends_the_connection(answer: bytes | None, error: str) -> None:
    async with connected(answer, OK) as (server, connections):
        assert error in str(await connections.post(b"x"))
        assert await connections.post(b"x") is None
    assert server.connections == 2


async def test_who_does_not_answer_in_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "TIMEOUT_S", 0.01)
    async with connected(b"") as (_, connections):
        assert await connections.post(b"x") == "TimeoutError: no answer in 0.01 s"


async def test_nobody_who_listens_is_an_error() -> None:
    assert "ConnectionRefusedError" in str(await HttpConnections("http://127.0.0.1:1/", "image/jpeg").post(b"x"))
