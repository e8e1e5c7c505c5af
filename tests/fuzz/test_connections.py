"""What is done to the ports themselves: requests that smuggle others, floods, clients that hold on."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import strategies as st

from service.rest.connection import HttpConnection
from tests.conformance.models import write_repository
from tests.conformance.wire import simple_request
from tests.fuzz.campaign import TRIED, campaign, try_inputs
from tests.fuzz.mutations import changed_bytes, to_json
from tests.fuzz.seeds import FORM
from tests.fuzz.target import GOOD, INFER, TIMEOUT_S, Target
from tests.repositories import write_model
from tests.service.launch import GRPC_TRANSPORT, RunningService, running

HEAD = b"POST /v2/models/simple/infer HTTP/1.1\r\nhost: x\r\n"
SMUGGLED = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
IDLE_CONNECTIONS = 10_000
FEWEST_CONNECTIONS = 1_000
MAX_CALLS = 1_000
MAX_BYTES_BY_CONNECTION = 64 * 2**10
PATIENCE_S = {"grpcio": 2 * HttpConnection.patience_s, "native": 120}[GRPC_TRANSPORT]
"""With a connection that is not yet made."""


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def said(connection: socket.socket) -> bytes:
    """What comes until the connection ends, in whatever way."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while content := connection.recv(2**16):
            found += content
    return found


AMBIGUOUS = {
    "a length and chunks": HEAD + b"content-length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and a length": HEAD + CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 0\r\ncontent-length: 41\r\n\r\n",
    "two lengths in one": HEAD + b"content-length: 0, 41\r\n\r\n",
    "a length with a sign": HEAD + b"content-length: +0\r\n\r\n",
    "a length in hexadecimals": HEAD + b"content-length: 0x0\r\n\r\n",
    "a length with a space": HEAD + b"content-length: 0 0\r\n\r\n",
    "a length beyond 64 bits": HEAD + b"content-length: 18446744073709551616\r\n\r\n",
    "a space before the colon": HEAD + b"content-length : 0\r\n\r\n",
    "a folded header": HEAD + b"content-length:\r\n 0\r\n\r\n",
    "a header's line end alone": HEAD + b"a: b\ncontent-length: 0\r\n\r\n",
    "a carriage return alone": HEAD + b"a: b\rcontent-length: 0\r\n\r\n",
    "a NUL in a header": HEAD + b"a: \0\r\n\r\n",
    "a header without a colon": HEAD + b"content-length\r\n\r\n",
    "a header without a name": HEAD + b": 0\r\n\r\n",
    "chunked, then something": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "something like chunked": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked behind a control character": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no number": HEAD + CHUNKED + b"\r\n-1\r\n\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": HEAD + CHUNKED + b"\r\n10000000000000000\r\n\r\n0\r\n\r\n",
    "a chunk longer than it says": HEAD + CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n",
    "a chunk's line end alone": HEAD + CHUNKED + b"\r\n1\na\n0\n\n",
    "a space before the method": b" " + SMUGGLED,
    "a space in the path": b"GET /v2/health/live /v2 HTTP/1.1\r\nhost: x\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
    "no such version": b"GET /v2 HTTP/3.0\r\nhost: x\r\n\r\n",
    "a beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_of_two_meanings_has_none(target: Target, name: str) -> None:
    """Whoever stands before the service may read it in another way: what follows must not be taken for a request."""
    TRIED["connections, ambiguous requests"] += 1
    with connect(target.address) as connection:
        connection.sendall(AMBIGUOUS[name] + SMUGGLED)
        answer = said(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    assert json.loads(body).keys() == {"error"}
    assert answer.count(b"HTTP/1.1") == 1


def test_an_upgrade_is_left_alone(target: Target) -> None:
    """Clients offer HTTP/2 and WebSockets; the request itself is answered."""
    for protocol in (b"h2c", b"websocket"):
        with connect(target.address) as connection:
            connection.sendall(
                b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: "
                + protocol
                + b"\r\n"
                b"sec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n"
            )
            assert said(connection).startswith(b"HTTP/1.1 200 ")
    target.must_be_unharmed()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, CONTINUATION, PING, RESET, WINDOW = 4, 1, 9, 6, 3, 8


def frame(kind: int, flags: int, stream: int, content: bytes = b"", *, length: int | None = None) -> bytes:
    """An HTTP/2 frame; `length` is what it says instead of the truth."""
    return (
        struct.pack(">I", len(content) if length is None else length)[1:]
        + struct.pack(">BBI", kind, flags, stream)
        + content
    )


def header(name: bytes, value: bytes) -> bytes:
    """A header field by HPACK, as a literal that is not indexed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


OPENED = PREFACE + frame(SETTINGS, 0, 0)
CALL = b"".join(
    header(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
MESSAGE = b"\0\0\0\0\0"
FLOODS = {
    "nothing but zeros": bytes(2**16),
    "a request of HTTP/1": SMUGGLED,
    "half of the preface": PREFACE[:10],
    "a preface with a letter changed": PREFACE.replace(b"SM", b"SN") + frame(SETTINGS, 0, 0),
    "a preface in small letters": PREFACE.lower(),
    "TLS": AMBIGUOUS["TLS"],
    "a frame as long as can be": OPENED + frame(0, 0, 1, length=2**24 - 1) + bytes(2**16),
    "a frame of an unknown kind": OPENED + frame(99, 255, 2**31 - 1, b"x" * 100),
    "settings of odd lengths": PREFACE + frame(SETTINGS, 0, 0, b"x" * 7),
    "settings over and over": OPENED + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**16) * 100) * 1000,
    "pings over and over": OPENED + frame(PING, 0, 0, bytes(8)) * 10_000,
    "windows beyond what they may be": OPENED + frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)) * 10,
    "headers without end": OPENED
    + frame(HEADERS, 0, 1, CALL)
    + frame(CONTINUATION, 0, 1, header(b"a", b"b" * 100) * 100) * 100,
    "headers that are no HPACK": OPENED + frame(HEADERS, 4, 1, b"\xff" * 1000),
    "headers larger than allowed": OPENED + frame(HEADERS, 4, 1, CALL + header(b"a", b"b" * 100) * 150),
    "streams opened and reset": OPENED
    + b"".join(
        frame(HEADERS, 4, stream, CALL) + frame(RESET, 0, stream, struct.pack(">I", 8)) for stream in range(1, 4001, 2)
    ),
    "streams opened and left": OPENED + b"".join(frame(HEADERS, 4, stream, CALL) for stream in range(1, 4001, 2)),
    "a message that says it is of 4 GiB": OPENED
    + frame(HEADERS, 4, 1, CALL)
    + frame(0, 0, 1, b"\0\xff\xff\xff\xff" + bytes(100)),
    "a message that says it is compressed": OPENED + frame(HEADERS, 4, 1, CALL) + frame(0, 1, 1, b"\1\0\0\0\3abc"),
    "half of a message": OPENED + frame(HEADERS, 4, 1, CALL) + frame(0, 1, 1, b"\0\0\0\0\x10abc"),
    "messages where one is due": OPENED + frame(HEADERS, 4, 1, CALL) + frame(0, 1, 1, MESSAGE * 1000),
    "a path of no method": OPENED
    + frame(HEADERS, 4, 1, CALL.replace(b"ModelInfer", b"ModelFever"))
    + frame(0, 1, 1, MESSAGE),
    "a path that is none": OPENED
    + frame(HEADERS, 4, 1, CALL.replace(b"/inference", b"\xffinference"))
    + frame(0, 1, 1, MESSAGE),
    "a body that is not gRPC's": OPENED
    + frame(HEADERS, 4, 1, CALL.replace(b"application/grpc", b"application/json"))
    + frame(0, 1, 1, b"{}"),
}


@pytest.fixture(scope="module")
def attacked_below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """grpcio logs a traceback for each path that is no text."""
    repository = tmp_path_factory.mktemp("attacked_below")
    write_repository(repository)
    write_model(repository)
    with running(repository, may_log={"grpcio": "UnicodeDecodeError", "native": ""}[GRPC_TRANSPORT]) as service:
        yield service


@pytest.fixture
def target_below(attacked_below: RunningService) -> Iterator[Target]:
    found = Target(attacked_below)
    yield found
    found.close()


@pytest.mark.parametrize("name", FLOODS)
def test_what_comes_to_the_grpc_port(target_below: Target, name: str) -> None:
    TRIED["connections, gRPC port"] += 1
    target = target_below
    with contextlib.suppress(OSError), connect(target.service.grpc) as connection:
        connection.sendall(FLOODS[name])
        connection.shutdown(socket.SHUT_WR)
        said(connection)
    # Of more than a thousand calls that wait to be begun, whosever they are, gRPC's core drops some.
    message = simple_request().SerializeToString()
    while target.call(INFER, [message], grpc.StatusCode.CANCELLED) is not grpc.StatusCode.OK:
        pass
    target.must_be_unharmed()


def test_calls_that_one_connection_may_begin(target_below: Target) -> None:
    """Each of them is memory held, and what begins one is a few bytes."""
    with connect(target_below.service.grpc) as connection:
        connection.sendall(OPENED)
        for stream in range(1, 2 * MAX_CALLS + 2, 2):
            connection.sendall(frame(HEADERS, 4, stream, CALL))
        answer = b""
        while frame(RESET, 0, 2 * MAX_CALLS + 1, length=4) not in answer:
            answer += connection.recv(2**16)
        assert frame(RESET, 0, 2 * MAX_CALLS - 1, length=4) not in answer
    target_below.must_be_unharmed()


@campaign(short=60, long=2000)
def test_bytes_at_either_port(target_below: Target, inputs: int) -> None:
    """Requests and frames with bytes changed, each on a connection of its own."""
    target, body = target_below, to_json(GOOD)
    infer = HEAD + b"accept-encoding: gzip;q=0.5, deflate\r\ncontent-encoding: identity\r\nx-request-id: 1\r\n"
    infer += b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n" % (len(body), len(body)) + body
    form = b"POST /v1/classify?top_k=1 HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    form += CHUNKED + b"connection: close\r\n\r\n%x\r\n" % len(FORM) + FORM + b"\r\n0\r\n\r\n"
    called = OPENED + frame(HEADERS, 4, 1, CALL) + frame(0, 1, 1, MESSAGE)

    def send(sent: tuple[str, bytes]) -> None:
        address, content = sent
        with contextlib.suppress(OSError), connect(address) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = said(connection)
            assert not answer.startswith(b"HTTP/1.1 5"), answer

    sent = st.one_of(
        st.tuples(st.just(target.address), changed_bytes(infer)),
        st.tuples(st.just(target.address), changed_bytes(form)),
        st.tuples(st.just(target.service.grpc), changed_bytes(called)),
    )
    try_inputs("connections, bytes at either port", inputs, sent, send, target.service.resident_bytes)
    target.must_be_unharmed()


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many connections as this process, and so the service that it starts, may have, but for some left over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(IDLE_CONNECTIONS, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def lone_target(tmp_path: Path, many_files: int) -> Iterator[Target]:
    """A service of its own, whose requests may take three seconds."""
    write_repository(tmp_path)
    write_model(tmp_path)
    with running(tmp_path, request_timeout_s=3) as service:
        target = Target(service)
        yield target
        target.close()


def open_files(service: RunningService) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def wait_for_files(service: RunningService, at_most: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (count := open_files(service)) > at_most:
        assert time.monotonic() < deadline, (count, at_most)
        time.sleep(0.1)


HOLDING = {
    "nothing": b"",
    "half of a head": HEAD,
    "half of a body": HEAD + b"content-length: 1000\r\n\r\n{",
    "half of a form": b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    b'content-length: 1000\r\n\r\n--x\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n',
    "half of a region": HEAD.replace(b"models/simple/infer", b"systemsharedmemory/region/a/register")
    + b"content-length: 9\r\n\r\n{",
    "half of an index": b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
    "a body that is waited for before it is sent": HEAD + b"expect: 100-continue\r\ncontent-length: 1000\r\n\r\n",
    "a body that nobody asked for": b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
    "a chunk": HEAD + CHUNKED + b"\r\n3e8\r\n{",
}
HOLDING_METRICS = {"nothing": b"", "half of a head": b"GET /metrics HTTP/1.1\r\n"}
HOLDING_GRPC = {"nothing": b"", "half of the preface": PREFACE[:10], "a preface and no settings": PREFACE}


@pytest.mark.system
@pytest.mark.timeout(300)
def test_who_holds_on_is_let_go(lone_target: Target) -> None:
    """Whatever a client has begun and does not end, and be it byte by byte: its connection ends."""
    before = open_files(lone_target.service)
    with contextlib.ExitStack() as stack:
        service = lone_target.service
        ports = {
            "HTTP": (lone_target.address, HOLDING),
            "metrics": (service.metrics.removeprefix("http://").removesuffix("/metrics"), HOLDING_METRICS),
            "gRPC": (service.grpc, HOLDING_GRPC),
        }
        holding = {}
        for port, (address, beginnings) in ports.items():
            for name, beginning in [*beginnings.items()] * 2:
                connection = stack.enter_context(connect(address))
                connection.sendall(beginning)
                connection.setblocking(False)
                holding[connection] = f"{port}: {name}"
        dripping = list(holding)[::2]
        TRIED["connections, held"] += len(holding)
        deadline = time.monotonic() + PATIENCE_S + 60
        while holding:
            assert time.monotonic() < deadline, list(holding.values())
            ended, _, _ = select.select(list(holding), [], [], 0.2)
            for connection in ended:
                with contextlib.suppress(ConnectionResetError):
                    if connection.recv(2**16):
                        continue
                holding.pop(connection)
            for connection in dripping:
                with contextlib.suppress(OSError):
                    connection.send(b"1")
    wait_for_files(lone_target.service, before, TIMEOUT_S)
    lone_target.must_be_unharmed()


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_idle_connections_by_the_thousand(lone_target: Target, many_files: int, protocol: str) -> None:
    """Others are served meanwhile, and HTTP's end by themselves."""
    if many_files < FEWEST_CONNECTIONS:
        pytest.skip(f"needs {FEWEST_CONNECTIONS} open files, the hard limit allows {many_files}")
    service = lone_target.service
    lone_target.must_be_unharmed()
    files, memory = open_files(service), service.resident_bytes()
    address = lone_target.address if protocol == "HTTP" else service.grpc
    with contextlib.ExitStack() as stack:
        for number in range(many_files):
            connection = stack.enter_context(connect(address))
            connection.sendall(OPENED if protocol == "gRPC" else SMUGGLED[:10])
            if number % 1000 == 0:
                lone_target.must_be_unharmed()
        lone_target.must_be_unharmed()
        TRIED[f"connections, idle ({protocol})"] += many_files
        assert service.resident_bytes() - memory < many_files * MAX_BYTES_BY_CONNECTION
        if protocol == "HTTP":
            wait_for_files(service, files + 10, 2 * HttpConnection.patience_s)
    wait_for_files(service, files + 10, TIMEOUT_S)
    lone_target.must_be_unharmed()


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_more_connections_than_files(target: Target, protocol: str) -> None:
    """Those that find no room wait or are closed; when others have gone there is room again."""
    service = target.service
    limit = open_files(service) + 30
    before = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                connection = stack.enter_context(connect(target.address if protocol == "HTTP" else service.grpc))
                with contextlib.suppress(ConnectionError):
                    connection.sendall(SMUGGLED if protocol == "HTTP" else OPENED)
            TRIED["connections, more than files"] += 100
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), connect(target.address) as connection:
                connection.sendall(SMUGGLED)
                if connection.recv(12) == b"HTTP/1.1 200":
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, before)
    target.must_be_unharmed()
