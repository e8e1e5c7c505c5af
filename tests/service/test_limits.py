"""What clients may hold of a running service, and for how long: what test_connection.py does not show."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.repositories import write_model
from tests.service.launch import GRPC_TRANSPORT, RunningService, running

MAX_CONNECTIONS = 3
TIMEOUT_S = 60
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_HEADERS = 4
ENHANCE_YOUR_CALM = 11


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("limited")
    write_model(repository)
    with running(repository, max_connections=MAX_CONNECTIONS) as service:
        yield service


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("hasty")
    write_model(repository)
    with running(repository, request_timeout_s=0.5) as service:
        yield service


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").removesuffix("/metrics").split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def frame(kind: int, content: bytes = b"", flags: int = 0, *, stream: int = 0) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def call_of(method: bytes, *metadata: bytes) -> bytes:
    """What a gRPC call begins with, packed; each word of at most 126 bytes."""
    words = [b":method", b"POST", b":scheme", b"http", b":path", method, b":authority", b"x", b"te", b"trailers"]
    words += [b"content-type", b"application/grpc", *metadata]
    fields = zip(words[::2], words[1::2], strict=True)
    return b"".join(b"\0" + b"".join(bytes([len(word)]) + word for word in field) for field in fields)


def said(connection: socket.socket) -> bytes:
    """All that comes, until the other side has enough."""
    content = b""
    try:
        while found := connection.recv(2**16):
            content += found
    except ConnectionResetError:
        pass
    return content


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_connections_over_http(limited: RunningService, port: str) -> None:
    address = limited.http if port == "http" else limited.metrics
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            held = stack.enter_context(connect(address))
            held.sendall(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
            assert held.recv(12) == b"HTTP/1.1 404"
        one_more = stack.enter_context(connect(address))
        assert said(one_more).startswith(b"HTTP/1.1 503")


@pytest.mark.skipif(GRPC_TRANSPORT == "native", reason="it has no such limit")
def test_connections_over_grpc(limited: RunningService) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            held = stack.enter_context(connect(limited.grpc))
            held.sendall(PREFACE + frame(SETTINGS))
            assert held.recv(9)[3] == SETTINGS
        one_more = stack.enter_context(connect(limited.grpc))
        assert said(one_more) == b""


@pytest.mark.skipif(GRPC_TRANSPORT == "native", reason="it answers every ping")
def test_a_grpc_client_that_pings_without_end_is_sent_away(hasty: RunningService) -> None:
    with connect(hasty.grpc) as connection:
        connection.sendall(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)) * 100)
        answer = said(connection)
        goaway = answer.index(b"too_many_pings") - 8 - 9
        assert answer[goaway + 3] == GOAWAY
        assert struct.unpack(">I", answer[goaway + 13 : goaway + 17]) == (ENHANCE_YOUR_CALM,)


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.skipif(GRPC_TRANSPORT == "native", reason="fuzz/test_connections.py has its own")
def test_a_grpc_client_that_answers_no_ping_does_not_hold_its_calls(hasty: RunningService) -> None:
    """Half of a message is waited for, but not from a client that is no more."""
    with connect(hasty.grpc) as connection:
        connection.settimeout(200)
        connection.sendall(PREFACE + frame(SETTINGS))
        connection.sendall(frame(HEADERS, call_of(b"/fovea.v1.Classifier/Classify"), END_HEADERS, stream=1))
        connection.sendall(frame(DATA, b"\0\0\0\0\x10abc", stream=1))
        said(connection)


@pytest.mark.parametrize("path", ["/v1/classify", "/v2/models/colours/infer", "/v2/repository/index"])
def test_half_of_a_body_is_not_waited_for_longer_than_a_request(hasty: RunningService, path: str) -> None:
    head = "host: x\r\ncontent-type: application/json\r\ncontent-length: 100"
    with connect(hasty.http) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
        assert connection.recv(12) == b"HTTP/1.1 504"


# Who is told


def test_a_service_that_is_open_to_everyone_says_so(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, host="0.0.0.0") as service:
        assert "  OPEN     whoever reaches this address is answered; set FOVEA_API_KEYS" in service.announcement
        assert "FOVEA_HOST=0.0.0.0: whoever reaches this address is answered" in service.stderr()


def test_one_that_is_not_says_nothing(hasty: RunningService) -> None:
    assert "127.0.0.1" in hasty.http
    assert "OPEN" not in hasty.announcement
    assert "whoever" not in hasty.stderr()
    with httpx.Client() as client:
        assert client.get(f"{hasty.http}/v2/health/ready").status_code == 200
