"""Slow, idle and boundless HTTP clients; against uvicorn with a handler of a line or two, and little patience."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.rest.connection import HeadWithBody, HttpConnection
from service.rest.server import http_server
from service.settings import Settings
from tests.repositories import picture, write_model
from tests.service.launch import running

LARGE = 64 * 2**20
REQUEST = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"


class Impatient(HttpConnection):
    patience_s = 0.5
    min_bytes_per_s = 2 * LARGE


async def handler(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    if request.url.path == "/read":
        await request.body()
    await Response(bytes(LARGE if request.url.path == "/large" else 2))(scope, receive, send)


@asynccontextmanager
async def serving(
    connection: Callable[..., HttpConnection] = Impatient, **options: Any
) -> AsyncIterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        handler,
        http=connection,  # type: ignore[arg-type]  # uvicorn calls it
        ws="none",
        lifespan="off",
        log_config=None,
        **options,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        await task


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def sends_half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST[:-2])


async def sends_a_head_byte_by_byte_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST[:-2] + b"a: ")
    while not reader.at_eof():
        writer.write(b"a")
        await asyncio.sleep(0.05)


async def sends_half_a_second_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST + REQUEST[:-2])
    assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")


async def sends_a_body_for_ever_that_nobody_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")
    while not reader.at_eof():
        writer.write(b"a")
        await asyncio.sleep(0.05)


async def test_the_next_request_has_as_long_as_the_first(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model_repository": tmp_path}
    async with http_server(handler, "http", 0, Settings(**given), HttpConnection) as server:
        assert server.config.timeout_keep_alive == HttpConnection.patience_s


@pytest.mark.parametrize(
    "client",
    [
        says_nothing,
        sends_half_a_head,
        sends_a_head_byte_by_byte_for_ever,
        sends_half_a_second_head,
        sends_a_body_for_ever_that_nobody_reads,
    ],
)
async def test_a_client_that_does_not_come_to_the_point_is_cut_off(client: Client) -> None:
    # uvicorn's own limit on idle connections must not be what ends these.
    async with serving(timeout_keep_alive=60) as address, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        await client(reader, writer)
        assert await ending(reader) == b""
        writer.close()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_client_that_does_not_take_its_answer_is_cut_off(connection: str) -> None:
    lost = asyncio.Event()

    class Watched(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async with serving(Watched, timeout_keep_alive=60) as address, asyncio.timeout(30):
        with socket.create_connection(address) as client:
            client.sendall(f"GET /large HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\n\r\n".encode())
            await lost.wait()
            # What had left before can still be read, and is not all of it.
            assert received(client) < LARGE


@pytest.mark.parametrize("last", [False, True])
async def test_a_client_that_does_not_take_a_direct_answer_is_cut_off(last: bool) -> None:
    lost = asyncio.Event()

    class Watched(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    def answer(connection: HttpConnection, body: bytes) -> bool:
        connection.begin_direct(lambda: None)
        connection.end_direct(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % LARGE, bytes(LARGE), last=last)
        return True

    async with serving(partial(Watched, direct=answer), timeout_keep_alive=60) as address, asyncio.timeout(30):
        with socket.create_connection(address) as client:
            client.sendall(b"POST /direct HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            await lost.wait()
            assert received(client) < LARGE


def received(client: socket.socket) -> int:
    count = 0
    try:
        while found := client.recv(2**20):
            count += len(found)
    except ConnectionResetError:
        pass
    return count


async def ending(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, in whatever way."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_client_that_takes_its_time_within_reason_is_served() -> None:
    async with serving() as address, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*address)
        for request in (REQUEST, REQUEST, b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"):
            for byte in request:
                writer.write(bytes([byte]))
                await writer.drain()
            assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")
        # A body's time is the application's to bound.
        writer.write(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n")
        await asyncio.sleep(2 * Impatient.patience_s)
        writer.write(b"a")
        assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")
        writer.close()


async def test_requests_sent_at_once_are_answered_in_turn() -> None:
    async with serving() as address, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST * 100)
        for _ in range(100):
            assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")
        writer.close()


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\na: ", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100])
async def test_a_head_without_end(beginning: bytes) -> None:
    async with serving(HttpConnection) as address, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(beginning)
        # As much at a time as is read at a time, so that what follows comes in pieces.
        while not reader._buffer:  # type: ignore[attr-defined]
            writer.write(b"a" * 4096)
            await asyncio.sleep(0.001)
        assert refusal(await ending(reader)) == (431, f"more than {HttpConnection.max_head_bytes} bytes")
        writer.close()


async def test_one_connection_more_than_there_may_be_is_refused() -> None:
    async with serving(partial(HttpConnection, max_connections=2)) as address, asyncio.timeout(30):
        connections = [await asyncio.open_connection(*address) for _ in range(3)]
        answers = [await reader.readline() for reader, _ in connections[2:]]
        for reader, writer in connections[:2]:
            writer.write(REQUEST)
            assert b"200" in await reader.readuntil(b"\r\n\r\n\0\0")
        assert answers == [b"HTTP/1.1 503 Service Unavailable\r\n"]
        connections[0][1].close()
        await connections[0][1].wait_closed()
        connections.append(await asyncio.open_connection(*address))
        connections[-1][1].write(REQUEST)
        assert b"200" in await connections[-1][0].readline()
        for _, writer in connections:
            writer.close()


async def test_what_is_no_http_is_refused_in_the_form_of_every_error() -> None:
    async with serving() as address, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
        assert refusal(await reader.read()) == (400, "Invalid HTTP request received.")
        writer.close()


def test_the_service_has_as_many_connections_as_it_may(tmp_path: Path) -> None:
    write_model(tmp_path)
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        with running(tmp_path) as service:
            assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


def test_clients_that_vanish_with_several_requests_unanswered_leave_no_traceback(tmp_path: Path) -> None:
    """Only with uvloop, which the service has, is it an error to write to a connection that is gone."""
    write_model(tmp_path, slow_rounds=20)
    image = picture("lime")
    request = (
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n" % len(image)
    ) + image
    with running(tmp_path) as service:
        address = service.http.removeprefix("http://").split(":")
        for number in range(30):
            with socket.create_connection((address[0], int(address[1]))) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(request * (1 + number % 3))
        gone = httpx.post(f"{service.http}/v1/classify", content=image, headers={"content-type": "image/jpeg"})
        assert gone.status_code == 200
        assert service.metric("fovea_requests_total", code="499") > 0
        assert "Traceback" not in service.stderr()


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


class Recorder:
    """A transport that notes each call."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def write(self, content: bytes) -> None:
        self.calls.append(content)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.calls.append(b"".join(parts))

    def close(self) -> None:
        self.calls.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.calls


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([HEAD, b"body"], [HEAD + b"body"]),
        ([HEAD, b"body", b"more", HEAD, b"next"], [HEAD + b"body", b"more", HEAD + b"next"]),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], [b"HTTP/1.1 100 Continue\r\n\r\n"]),
        ([HEAD], []),
    ],
)
def test_a_head_waits_for_what_follows(written: list[bytes], sent: list[bytes]) -> None:
    recorder = Recorder()
    transport = HeadWithBody(cast(Any, recorder))
    for content in written:
        transport.write(content)
    assert recorder.calls == sent


def test_a_head_alone_is_sent_at_the_end() -> None:
    recorder = Recorder()
    transport = HeadWithBody(cast(Any, recorder))
    transport.write(HEAD)
    transport.flush()
    transport.flush()
    transport.write(HEAD)
    transport.close()
    assert recorder.calls == [HEAD, HEAD, "closed"]
