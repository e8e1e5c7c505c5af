"""Known requests over HTTP: answered from the connection, as the application would have answered them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio
import uvicorn
from onnx import helper

from service.telemetry import request_id
from tests.conformance.models import (
    Value,
    graph,
    write_classifier,
    write_identity,
    write_lookup,
    write_model,
    write_simple,
)
from tests.conformance.wire import LENGTH_HEADER, Answer
from tests.service.inside import (
    ORDINARY,
    Client,
    Inside,
    Values,
    infer,
    inside,
    post,
    random_like,
    shown,
    tensors_of,
    words_of,
)
from tests.service.launch import running, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAIR: Values = {"INPUT0": np.arange(16, dtype="<i4").reshape(1, 16), "INPUT1": np.ones((1, 16), "<i4")}
ONE: Values = {"INPUT0": np.array([[1, 2]], "<f4")}
ALONE = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
OVERRIDABLE = "default_timeout_microseconds: 60000000 allow_timeout_override: true"
REUSED = "reused"
WIDTH = 50_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    """Models of every kind that a request can be known of, and "alone", with room for one that waits."""
    repository = tmp_path_factory.mktemp("known")
    write_simple(repository)
    write_identity(repository, "open", "FP32", (-1, -1))
    write_identity(repository, "half", "FP16", (-1,))
    write_identity(repository, "text", "BYTES", (1,))
    write_identity(repository, "unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    write_identity(repository, "empty", "FP32", (-1,), max_batch_size=0, extra="")
    write_identity(repository, "pair", "FP32", (2,))
    write_identity(repository, "alone", "FP32", (2,), max_batch_size=1, extra=ALONE)
    patient = f"dynamic_batching {{ default_queue_policy {{ {OVERRIDABLE} }} }}"
    write_identity(repository, "patient", "FP32", (2,), max_batch_size=1, extra=patient)
    write_classifier(repository)
    write_lookup(repository)
    write_identity(repository, "shared_memory", "FP32", (2,))
    write_wide(repository)
    settings = {"trace_file": repository.parent / "trace.json", "log_and_trace_changes": True}
    async with inside(repository, model_control_mode="explicit", system_shared_memory=True, **settings) as started:
        yield started


def write_wide(repository: Path) -> None:
    """A little goes in, and much comes out."""
    nodes = [helper.make_node("Expand", ["INPUT0", "shape"], ["OUTPUT0"])]
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, WIDTH])
    inputs, outputs = [Value("INPUT0", "FP32", (1,))], [Value("OUTPUT0", "FP32", (WIDTH,))]
    write_model(repository, "wide", inputs, outputs, {1: (nodes, [shape])})


@pytest_asyncio.fixture(loop_scope="module")
async def service(shared: Inside) -> AsyncIterator[Inside]:
    """The shared one, as if nothing had been known yet."""
    shared.known.clear()
    yield shared
    shared.gate.open()
    assert await shared.metric("fovea_requests_in_flight") == 0


@pytest_asyncio.fixture(loop_scope="module")
async def client(service: Inside) -> AsyncIterator[Client]:
    async with await service.connect() as client:
        yield client


async def know(service: Inside, client: Client, request: bytes) -> Answer:
    """Have a request answered until it is known."""
    for _ in range(2):
        service.known.clear()
        answer = await client.ask(request)
        assert answer.status == 200, answer
    assert len(service.known) == 1
    service.known.clear()
    return answer


# The answer


@pytest.mark.parametrize(
    ("model", "values", "options"),
    [
        ("simple", PAIR, {}),
        ("simple", dict(reversed([*PAIR.items()])), {}),
        ("simple", PAIR, {"outputs": ["OUTPUT1", "OUTPUT0"]}),
        ("simple", PAIR, {"outputs": ["OUTPUT1"]}),
        ("simple", PAIR, {"outputs": ["OUTPUT1", "OUTPUT0", "OUTPUT1"]}),
        ("simple", PAIR, {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}]}),
        ("simple", {name: np.repeat(array, 3, 0) for name, array in PAIR.items()}, {"an_own_one": "of the client"}),
        ("open", {"INPUT0": np.zeros((1, 2, 3), "<f4")}, {}),
        ("open", {"INPUT0": np.zeros((2, 4, 1), "<f4")}, {}),
        ("half", {"INPUT0": np.zeros((1, 5), "<f2")}, {}),
        ("unbatched", {"INPUT0": np.zeros((2, 3), "<f4")}, {}),
        ("empty", {"INPUT0": np.zeros((0,), "<f4")}, {}),
        ("classifier", {"SCORES": np.zeros((1, 4), "<f4")}, {"priority": 1}),
    ],
)
async def test_known_requests_are_answered_as_others(
    service: Inside, client: Client, model: str, values: Values, options: dict[str, Any]
) -> None:
    words = words_of(values, **options)
    first = await client.ask(post(model, words, tensors_of(values)))
    assert (first.status, service.known) == (200, [])
    for seed in range(3):
        tensors = tensors_of(random_like(values, seed))
        known = await client.ask(post(model, words, tensors))
        assert len(service.known) == seed + 1
        ordinary = await client.ask(post(model, words, tensors, ORDINARY))
        assert len(service.known) == seed + 1
        assert shown(known) == shown(ordinary)
        assert known.headers.keys() == ordinary.headers.keys()


async def test_a_version_is_answered_by_itself(service: Inside, client: Client) -> None:
    values = {"SCORES": np.array([[1, 2, 3, 4]], "<f4")}
    for version in ("1", "2", "1", "2", "", "1"):
        answer = await client.ask(infer("classifier", values, version=version))
        found, logits = answer.binary()
        assert found["model_version"] == (version or "2")
        assert logits == (values["SCORES"] * int(version or "2")).tobytes()
    assert len(service.known) == 3


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        ([], None),
        (["x-request-id: mine"], "mine"),
        (["X-Request-ID: mine", "x-request-id: another"], "mine"),
        (["x-request-id: " + 129 * "a"], None),
    ],
)
async def test_a_request_id_is_given_back_or_made(
    service: Inside, client: Client, headers: list[str], given: str | None
) -> None:
    await know(service, client, infer("pair", ONE))
    for own in ([], [ORDINARY]):
        identity = (await client.ask(infer("pair", ONE, *headers, *own))).headers["x-request-id"]
        assert identity == given if given else re.fullmatch("[0-9a-f]{32}", identity)
    assert len(service.known) == 1


# What is another request


@pytest.mark.parametrize("size", [0, 3, 5, 8, 20])
async def test_a_body_of_another_size_is_refused_as_ever(service: Inside, client: Client, size: int) -> None:
    values: Values = {"INPUT0": np.ones((1, 1, 1), "<f4")}
    await know(service, client, infer("open", values))
    request = post("open", words_of(values), bytes(size))
    ordinary = await client.ask(post("open", words_of(values), bytes(size), ORDINARY))
    assert shown(await client.ask(request)) == shown(ordinary)
    assert ordinary.error(400)
    assert not service.known
    await know(service, client, infer("open", values))


@pytest.mark.parametrize("length", ["0", "1", "10000", "x", "", "-1", "99999999999999999999"])
async def test_another_length_of_the_words_is_another_request(service: Inside, client: Client, length: str) -> None:
    await know(service, client, infer("pair", ONE))
    ordinary = await client.ask(infer("pair", ONE, ORDINARY, length=length))
    assert shown(await client.ask(infer("pair", ONE, length=length))) == shown(ordinary)
    assert not service.known


async def test_of_two_lengths_the_first_counts(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    words = len(words_of(ONE))
    for first, second in ((words, words - 1), (words - 1, words)):
        requests = [
            infer("pair", ONE, f"{LENGTH_HEADER}: {second}", *own, length=str(first)) for own in ([], [ORDINARY])
        ]
        known, ordinary = [await client.ask(request) for request in requests]
        assert shown(known) == shown(ordinary)
        assert ordinary.status == (200 if first == words else 400)


SHM_OUTPUT = {"shared_memory_region": "region", "shared_memory_byte_size": 8}


@pytest.mark.parametrize(
    "request_",
    [
        post("pair", words_of(ONE)[:-1] + b', "id": "a"}', tensors_of(ONE)),
        post(
            "classifier",
            words_of({"SCORES": np.zeros((1, 4), "<f4")}, [{"name": "LOGITS", "parameters": {"classification": 2}}]),
            bytes(16),
        ),
        post("pair", words_of(ONE, binary_data_output=False), tensors_of(ONE)),
        post("pair", words_of(ONE, [{"name": "OUTPUT0", "parameters": {"binary_data": False}}]), tensors_of(ONE)),
        post(
            "simple",
            words_of(PAIR, [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, "OUTPUT1"]),
            tensors_of(PAIR),
        ),
        post(
            "pair",
            b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,2],"data":[1,2]}],'
            b'"parameters":{"binary_data_output":true}}',
        ),
        post(
            "text",
            b'{"inputs":[{"name":"INPUT0","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":5}}],'
            b'"parameters":{"binary_data_output":true}}',
            b"\1\0\0\0a",
        ),
        post("pair", b"", tensors_of(ONE)),
        infer("pair", ONE, query="?a=b"),
        infer("pair", ONE, ORDINARY),
        infer("pair", ONE, "accept-encoding: gzip"),
        infer("pair", ONE, "content-encoding: identity"),
        infer("shared_memory", ONE, "expect: 100-continue", protocol="HTTP/1.1"),
    ],
    ids=lambda request: "",
)  # fmt: skip
async def test_what_is_never_known(service: Inside, request_: bytes) -> None:
    async with await service.connect() as client:
        for _ in range(3):
            client.send(request_)
            if b"100-continue" in request_:
                assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.answer()).status == 200
        assert not service.known


@pytest.mark.parametrize("key", ["shared_memory", r"shared\u005fmemory"])
async def test_tensors_in_shared_memory_are_never_known(service: Inside, client: Client, key: str) -> None:
    """In whatever words they are asked for."""
    with NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(16))
        file.flush()
        await register(client, "register", {"key": f"/{Path(file.name).name}", "offset": 0, "byte_size": 16})
        parameters = {"binary_data": True, "shared_memory_region": "known", "shared_memory_byte_size": 8}
        words = words_of(ONE, [{"name": "OUTPUT0", "parameters": parameters}])
        words = words.replace(b"shared_memory", key.encode())
        for seed in range(3):
            values = random_like(ONE, seed)
            found = (await client.ask(post("pair", words, tensors_of(values)))).json
            assert found["outputs"][0]["parameters"]["shared_memory_byte_size"] == 8
            assert os.pread(file.fileno(), 8, 0) == tensors_of(values)
        await register(client, "unregister", {})
        assert (await client.ask(post("pair", words, tensors_of(ONE)))).status == 404
        assert not service.known


async def register(client: Client, what: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    path = f"/v2/systemsharedmemory/region/known/{what}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    assert (await client.ask(head.encode(), content)).status == 200


@pytest.mark.parametrize(
    ("protocol", "headers"),
    [("HTTP/1.0", []), ("HTTP/1.0", ["connection: keep-alive"]), ("HTTP/1.1", ["connection: close"])],
)
async def test_a_connection_is_closed_after_its_last_request(
    service: Inside, client: Client, protocol: str, headers: list[str]
) -> None:
    await know(service, client, infer("pair", ONE))
    async with await service.connect() as last:
        answer = await last.ask(infer("pair", ONE, *headers, protocol=protocol))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await last.ending() == b""
    assert not service.known


# Pieces, and several at once


async def test_requests_sent_at_once_are_answered_in_turn(service: Inside, client: Client) -> None:
    """Whatever they are: known, unknown by their words, no inference, an error."""
    await know(service, client, infer("pair", ONE))
    values = [random_like(ONE, seed) for seed in range(12)]
    requests = [infer("pair", each) for each in values]
    live = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    for others in (
        [],
        [live],
        [infer("pair", ONE, ORDINARY)],
        [infer("nobody", ONE)],
        [live, infer("pair", ONE, query="?")],
    ):
        for order in (requests + others, others + requests, requests[:6] + others + requests[6:]):
            service.known.clear()
            client.send(*order)
            for request in order:
                answer = await client.answer()
                if request in requests:
                    assert answer.binary()[1] == tensors_of(values[requests.index(request)])
                else:
                    assert answer.status == (404 if b"nobody" in request else 200)
            assert others or len(service.known) >= 1
            # After the others, too, there are known ones.
            service.known.clear()
            await client.ask(requests[0])
            assert len(service.known) == 1


async def test_a_known_request_waits_for_one_before_it(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("patient", ONE, query="?first"))
    await service.gate.reached()
    client.send(infer("pair", ONE))
    client.send(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    service.gate.open()
    found = [await client.answer() for _ in range(3)]
    assert [answer.status for answer in found] == [200] * 3
    assert b'"patient"' in found[0].body
    assert b'"pair"' in found[1].body
    assert found[2].json == {"live": True}


async def test_what_follows_a_known_request_waits_for_it(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("pair", ONE))
    await service.gate.reached()
    client.send(infer("simple", PAIR), b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n", infer("pair", ONE))
    service.gate.open()
    found = [await client.answer() for _ in range(4)]
    assert b'"pair"' in found[0].body
    assert b'"simple"' in found[1].body
    assert found[2].json == {"live": True}
    assert shown(found[3]) == shown(found[0])


async def test_a_request_in_pieces_is_answered(service: Inside, client: Client) -> None:
    request = infer("pair", ONE)
    expected = await know(service, client, request)
    head = request.index(b"\r\n\r\n") + 4
    for at in (head, head + 5, len(request) - 1):
        client.send(request[:at])
        await service.wait_for_metric(1, "fovea_requests_in_flight", protocol="http")
        assert shown(await client.ask(request[at:])) == shown(expected)
        assert not service.known
    client.send(request[:10])
    assert shown(await client.ask(request[10:])) == shown(expected)


async def test_a_body_in_chunks_is_answered(service: Inside, client: Client) -> None:
    words, tensors = words_of(ONE), tensors_of(ONE)
    expected = await know(service, client, post("pair", words, tensors))
    head = post("pair", words, b"", "transfer-encoding: chunked").removesuffix(words)
    whole = words + tensors
    for size in (len(whole), 7):
        for trailer in (b"", b"x-request-id: late\r\n"):
            parts = [whole[at : at + size] for at in range(0, len(whole), size)]
            chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
            request = b"".join([head, *chunks, b"0\r\n", trailer, b"\r\n"])
            service.known.clear()
            assert shown(await client.ask(request)) == shown(expected)
            assert len(service.known) == 1
            # In two.
            client.send(request[: len(head) + 20])
            assert (await client.ask(request[len(head) + 20 :])).body == expected.body


async def test_a_body_that_is_no_http_is_refused(service: Inside) -> None:
    async with await service.connect() as client:
        await know(service, client, infer("pair", ONE))
        head = post("pair", words_of(ONE), b"", "transfer-encoding: chunked").removesuffix(words_of(ONE))
        assert (await client.ask(head, b"no chunk")).error(400) == "Invalid HTTP request received."
        assert await client.ending() == b""


async def test_a_large_request_is_answered(service: Inside, client: Client) -> None:
    """Larger than what is read at a time."""
    values = {"INPUT0": np.random.default_rng(0).random((1, 1000, 1000), np.float32)}
    for _ in range(2):
        assert (await client.ask(infer("open", values))).binary()[1] == tensors_of(values)


async def test_who_does_not_read_the_answers_is_read_no_further(service: Inside, client: Client) -> None:
    """And gets all of them, in their order, once he does."""
    values = {"INPUT0": np.zeros((1, 100, 100), "<f4")}
    await know(service, client, infer("open", values))
    count = 400
    async with await service.connect() as slow:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        requests = [infer("open", {"INPUT0": np.full((1, 100, 100), number, "<f4")}) for number in range(count)]
        slow.send(*requests)
        answered, unchanged = 0, 0
        while unchanged < 50:
            await client.ask(infer("pair", ONE))
            unchanged = unchanged + 1 if answered == service.statistics("open").success.count else 0
            answered = service.statistics("open").success.count
        assert await service.metric("fovea_requests_in_flight", protocol="http") <= 1
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(count):
            assert np.frombuffer((await slow.answer()).binary()[1], "<f4")[0] == number


async def test_answers_that_nobody_takes_do_not_pile_up(service: Inside, client: Client) -> None:
    """Though each request is sent when the one before it was answered, and is known."""
    request, count = infer("wide", {"INPUT0": np.ones((1, 1), "<f4")}), 200
    await know(service, client, request)
    before = service.statistics("wide").success.count
    async with await service.connect() as slow:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            slow.send(request)
            # By then it was answered, if it is at all.
            await client.ask(infer("wide", {"INPUT0": np.ones((1, 1), "<f4")}))
        assert 1 <= len(service.known) - count < count / 2
        assert service.statistics("wide").success.count - before - count < count / 2
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await slow.answer()).binary()[1] == np.ones(WIDTH, "<f4").tobytes()


# Versions that come and go


def scaled(repository: Path, factor: float, *, width: int = 2) -> None:
    """Write the model, in place of the one before."""
    nodes = [helper.make_node("Mul", ["INPUT0", "factor"], ["OUTPUT0"])]
    initializers = [helper.make_tensor("factor", onnx.TensorProto.FLOAT, [], [factor])]
    inputs, outputs = [Value("INPUT0", "FP32", (width,))], [Value("OUTPUT0", "FP32", (width,))]
    folder = repository / REUSED
    if not folder.exists():
        write_model(repository, REUSED, inputs, outputs, {1: (nodes, initializers)})
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(re.sub(r"dims: \[\d+\]", f"dims: [{width}]", config))
    onnx.save(graph(inputs, outputs, nodes, initializers), folder / "1" / "model.onnx")


async def test_the_version_that_is_served_answers(service: Inside, client: Client) -> None:
    folder, repository = service.folder, service.running.repository
    request = infer(REUSED, ONE)
    assert (await client.ask(request)).status == 404
    for factor in (2, 3):
        scaled(folder, factor)
        await repository.load(REUSED)
        for known in (0, 1, 2):
            assert (await client.ask(request)).binary()[1] == (ONE["INPUT0"] * factor).tobytes()
            assert len(service.known) == known
        service.known.clear()
    scaled(folder, 4, width=3)
    await repository.load(REUSED)
    refused = await client.ask(request)
    assert shown(refused) == shown(await client.ask(infer(REUSED, ONE, ORDINARY)))
    assert "unexpected shape" in refused.error(400)
    await know(service, client, infer(REUSED, {"INPUT0": np.zeros((1, 3), "<f4")}))
    await repository.unload(REUSED)
    gone = await client.ask(infer(REUSED, {"INPUT0": np.zeros((1, 3), "<f4")}))
    assert gone.error(404) == f"Request for unknown model: '{REUSED}' has no available versions"
    assert not service.known


async def test_a_new_version_answers_as_soon_as_it_is_there(service: Inside, client: Client) -> None:
    folder, repository = service.folder, service.running.repository
    scaled(folder, 2)
    await repository.load(REUSED)
    request, named = infer(REUSED, ONE), infer(REUSED, ONE, version="1")
    for each in (request, named):
        await know(service, client, each)
    shutil.copytree(folder / REUSED / "1", folder / REUSED / "2")
    try:
        await repository.load(REUSED)
        for known in (0, 1):
            assert (await client.ask(request)).binary()[0]["model_version"] == "2"
            assert len(service.known) == known
        # Only the newest is served.
        assert (await client.ask(named)).error(404).endswith("version 1 is not found")
    finally:
        shutil.rmtree(folder / REUSED / "2")
    await repository.load(REUSED)
    assert (await client.ask(named)).binary()[0]["model_version"] == "1"


async def test_a_version_answers_what_it_has_before_it_goes(service: Inside, client: Client) -> None:
    repository = service.running.repository
    scaled(service.folder, 2)
    await repository.load(REUSED)
    request = infer(REUSED, ONE)
    await know(service, client, request)
    service.gate.shut()
    client.send(request)
    await service.gate.reached()
    await repository.unload(REUSED)
    async with await service.connect() as other:
        assert (await other.ask(request)).status == 404
    service.gate.open()
    assert (await client.answer()).binary()[1] == (ONE["INPUT0"] * 2).tobytes()


# What goes wrong


async def test_a_full_queue_refuses_at_once(service: Inside, client: Client) -> None:
    request = infer("alone", ONE)
    await know(service, client, request)
    rejected = await service.metric("fovea_requests_rejected_total")
    service.gate.shut()
    async with await service.connect() as ahead, await service.connect() as waiting:
        ahead.send(request)
        await service.gate.reached()
        waiting.send(request)
        await service.waits("alone", 1)
        refused = await client.ask(request)
        assert len(service.known) == 3
        assert shown(refused) == shown(await client.ask(infer("alone", ONE, ORDINARY)))
        assert (refused.headers["retry-after"], refused.headers["content-type"]) == ("1", "application/json")
        assert "Exceeds maximum queue size" in refused.error(503)
        assert await service.metric("fovea_requests_rejected_total") == rejected + 2
        # Several on one connection are refused in their turn.
        client.send(request, request, request)
        assert [(await client.answer()).status for _ in range(3)] == [503] * 3
        service.gate.open()
        assert [(await each.answer()).status for each in (ahead, waiting)] == [200, 200]


async def test_a_connection_is_not_idle_because_its_first_request_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one takes longer than a connection may be idle."""
    write_identity(tmp_path, "alone", "FP32", (2,), max_batch_size=1, extra=ALONE)
    write_identity(tmp_path, "other", "FP32", (2,))
    monkeypatch.setattr(uvicorn, "Config", partial(uvicorn.Config, timeout_keep_alive=0))
    async with inside(tmp_path) as service, AsyncExitStack() as stack:
        ahead, waiting, last = [await stack.enter_async_context(await service.connect()) for _ in range(3)]
        for model in ("alone", "other"):
            for _ in range(2):
                async with await service.connect() as first:
                    assert (await first.ask(infer(model, ONE))).status == 200
        service.gate.shut()
        ahead.send(infer("alone", ONE))
        await service.gate.reached()
        waiting.send(infer("alone", ONE))
        await service.waits("alone", 1)
        service.known.clear()
        last.send(infer("alone", ONE), infer("other", ONE))
        assert (await last.answer()).status == 503
        await service.gate.reached(2)
        service.gate.open()
        assert (await last.answer()).status == 200
        assert len(service.known) == 2


async def test_a_request_waits_no_longer_than_it_wants(service: Inside, client: Client) -> None:
    words, tensors = words_of(ONE, timeout=20_000), tensors_of(ONE)
    await know(service, client, post("patient", words, tensors))
    failed = service.statistics("patient").fail.count
    service.gate.shut()
    async with await service.connect() as ahead, await service.connect() as ordinary:
        ahead.send(infer("patient", ONE, ORDINARY))
        await service.gate.reached()
        refused = await client.ask(post("patient", words, tensors))
        assert shown(refused) == shown(await ordinary.ask(post("patient", words, tensors, ORDINARY)))
        assert refused.error(503) == "Request timeout expired"
        assert refused.headers["retry-after"] == "1"
        assert service.statistics("patient").fail.count == failed + 2
        assert len(service.known) == 1
        service.gate.open()
        assert (await ahead.answer()).status == 200
    assert service.gate.sizes == [1]


async def test_a_request_is_answered_in_time_or_not_at_all(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with inside(tmp_path, request_timeout_s=0.3) as service, await service.connect() as client:
        await know(service, client, infer("pair", ONE))
        service.gate.shut()
        async with await service.connect() as ordinary:
            ordinary.send(infer("pair", ONE, ORDINARY))
            await service.gate.reached()
            late = await client.ask(infer("pair", ONE))
            assert shown(late) == shown(await ordinary.answer())
        assert late.error(504) == "the deadline passed before the result was there"
        assert len(service.known) == 1
        service.gate.open()
        # What was late costs nothing.
        assert (await client.ask(infer("pair", ONE))).status == 200
        assert len(service.gate.sizes) == 2
        assert service.statistics("pair").fail.count == 2


async def test_a_batch_that_fails_fails_its_requests(service: Inside, client: Client) -> None:
    good, bad = ({"INDEX": np.array([[index]], "<i8")} for index in (1, 99))
    await know(service, client, infer("lookup", good))
    failed = service.statistics("lookup").fail.count
    answer = await client.ask(infer("lookup", bad))
    assert len(service.known) == 1
    assert shown(answer) == shown(await client.ask(infer("lookup", bad, ORDINARY)))
    assert answer.error(500).startswith("inference failed: ")
    assert service.statistics("lookup").fail.count == failed + 2
    assert (await client.ask(infer("lookup", good))).binary()[1] == np.array([20], "<f4").tobytes()


async def test_the_log_names_the_request(service: Inside, client: Client) -> None:
    await know(service, client, infer("lookup", {"INDEX": np.array([[1]], "<i8")}))
    logged: list[tuple[str, str]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append((request_id.get(), record.getMessage()))

    logger, kept, level = logging.getLogger("fovea"), Kept(), logging.getLogger("fovea").level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    try:
        for index, own in ((1, []), (1, [ORDINARY]), (99, []), (99, [ORDINARY])):
            values = {"INDEX": np.array([[index]], "<i8")}
            await client.ask(infer("lookup", values, "x-request-id: mine", *own))
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
    assert len(service.known) == 2
    mine = [re.sub(r"in [\d.]+ ms", "", text) for identity, text in logged if identity == "mine"]
    assert (len(logged), len(mine)) == (6, 6)
    assert Counter(mine[:1] + mine[2:4]) == Counter(mine[1:2] + mine[4:])
    assert request_id.get() == "-"


async def test_who_goes_away_while_he_waits_costs_nothing(service: Inside, client: Client) -> None:
    await know(service, client, infer("patient", ONE))
    cancelled = await service.metric("fovea_requests_total", protocol="http", model="patient", code="499")
    counted = service.statistics("patient").success.count
    service.gate.shut()
    async with await service.connect() as ahead:
        ahead.send(infer("patient", ONE))
        await service.gate.reached()
        for own in ([], [ORDINARY]):
            async with await service.connect() as gone:
                gone.send(infer("patient", ONE, *own))
                await service.waits("patient", 1 + bool(own))
        await service.wait_for_metric(cancelled + 2, "fovea_requests_total", code="499", model="patient")
        assert await service.metric("fovea_requests_in_flight", protocol="http") == 1
        service.gate.open()
        assert (await ahead.answer()).status == 200
    assert (await client.ask(infer("patient", ONE))).status == 200
    assert service.gate.sizes == [1, 1]
    assert service.statistics("patient").success.count == counted + 2


async def test_who_goes_away_while_he_is_answered_harms_nobody(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("pair", ONE))
    await service.gate.reached()
    async with await service.connect() as gone, await service.connect() as stays:
        for each in (gone, stays):
            each.send(infer("pair", ONE))
        await service.waits("pair", 2)
        service.gate.sizes.clear()
        service.gate.open()
        await service.gate.reached()
        gone.writer.transport.abort()
        assert (await stays.answer()).status == 200
    assert (await client.answer()).status == 200


# What is counted


async def test_known_requests_are_counted_as_others(tmp_path: Path) -> None:
    write_lookup(tmp_path)
    good, bad = ({"INDEX": np.array([[index]], "<i8")} for index in (1, 99))

    async def counts(service: Inside, *headers: str) -> dict[str, float]:
        before = await counted(service)
        async with await service.connect() as client:
            for values in (good, good, bad, good):
                await client.ask(infer("lookup", values, *headers))
        after = await counted(service)
        return {name: after[name] - before[name] for name in after}

    async def counted(service: Inside) -> dict[str, float]:
        found = service.statistics("lookup")
        names = ("fovea_requests_total", "fovea_batch_size_count", "fovea_batches_failed_total", "fovea_batch_size_sum")
        return {
            "success": found.success.count,
            "fail": found.fail.count,
            "queue": found.queue.count,
            "compute": found.requests.compute_infer.count,
            "inferences": found.inference_count,
            "executions": found.execution_count,
            "ok": await service.metric("fovea_requests_total", protocol="http", model="lookup", code="200"),
            "500": await service.metric("fovea_requests_total", protocol="http", model="lookup", code="500"),
            **{name: await service.metric(name, model="lookup") for name in names},
        }

    async with inside(tmp_path) as service, await service.connect() as client:
        await know(service, client, infer("lookup", good))
        start = service.statistics("lookup")
        known = await counts(service)
        assert len(service.known) == 4
        ordinary = await counts(service, ORDINARY)
        assert len(service.known) == 4
        assert known == ordinary
        assert (known["success"], known["ok"], known["500"], known["fail"]) == (3, 3, 1, 1)
        assert start.last_inference_ms > 0
        assert start.success.ns > start.requests.compute_infer.ns > 0


async def test_requests_are_traced_as_soon_as_any_are(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    for level in ("TIMESTAMPS", "OFF"):
        content = json.dumps({"trace_level": [level], "trace_rate": "1"}).encode()
        head = f"POST /v2/trace/setting HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        assert (await client.ask(head.encode(), content)).status == 200
        for number in range(2):
            answer = await client.ask(infer("pair", ONE, f"x-request-id: {level} {number}"))
            assert answer.status == 200
        assert len(service.known) == (0 if level == "TIMESTAMPS" else 2)
    trace = service.folder.parent / "trace.json"
    await until(lambda: trace.exists() and trace.read_text().endswith("]\n"))
    traced = [entry["request_id"] for entry in json.loads(trace.read_text()) if "request_id" in entry]
    assert traced == ["TIMESTAMPS 0", "TIMESTAMPS 1"]


# The end


async def test_answers_at_the_end_say_that_it_is_the_end(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with inside(tmp_path) as service, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await service.connect()) for _ in range(3)]
        await know(service, clients[0], infer("pair", ONE))
        service.gate.shut()
        for client, own in zip(clients, ([ORDINARY], [], []), strict=True):
            client.send(infer("pair", ONE, *own))
        await service.gate.reached()
        await service.waits("pair", 2)
        assert len(service.known) == 2
        service.lifecycle.stopping.set()
        late = await stack.enter_async_context(await service.connect())
        refused = await late.ask(infer("pair", ONE))
        assert (refused.error(503), refused.headers["connection"]) == ("the service is stopping", "close")
        service.gate.open()
        ordinary, *known = [await client.answer() for client in clients]
        assert ordinary.headers["connection"] == "close"
        assert [shown(answer) for answer in known] == [shown(ordinary)] * 2
        for client in (*clients, late):
            assert await client.ending() == b""


async def test_the_grace_period_bounds_the_wait_of_known_requests(tmp_path: Path) -> None:
    """What waits then is not inferred any more."""
    write_identity(tmp_path, "pair", "FP32", (2,), max_batch_size=1)
    async with AsyncExitStack() as stack, inside(tmp_path, grace_period_s=0.1, request_timeout_s=600) as service:
        clients = [await stack.enter_async_context(await service.connect()) for _ in range(5)]
        await know(service, clients[0], infer("pair", ONE))
        service.gate.shut()
        for client in clients:
            client.send(infer("pair", ONE))
        await service.gate.reached()
        await service.waits("pair", 4)
        service.lifecycle.stopping.set()
        assert await asyncio.gather(*(client.ending() for client in clients), return_exceptions=True)
        await service.lifecycle.idle()
        service.gate.open()
    assert service.gate.sizes == [1]


async def test_under_load_every_known_request_that_was_accepted_is_answered(tmp_path: Path) -> None:
    write_identity(tmp_path, "pair", "FP32", (2,))
    outcomes: Counter[str] = Counter()
    enough = asyncio.Event()

    async def ask(address: list[str]) -> None:
        client = Client(*await asyncio.open_connection(address[0], int(address[1])))
        async with client:
            while True:
                try:
                    answer = await client.ask(infer("pair", ONE))
                except (ConnectionError, asyncio.IncompleteReadError):
                    outcomes["refused"] += 1
                    return
                outcomes[str(answer.status)] += 1
                if outcomes["200"] >= 500:
                    enough.set()
                if answer.status != 200 or answer.headers.get("connection") == "close":
                    return

    with running(tmp_path, log_level="debug") as process:
        address = process.http.removeprefix("http://").split(":")
        async with asyncio.TaskGroup() as clients:
            for _ in range(16):
                clients.create_task(ask(address))
            await asyncio.wait_for(enough.wait(), 60)
            process.terminate()
        assert await asyncio.to_thread(process.exit_code) == 0
        logged = Counter(re.findall(r" http request: (\S+) in ", process.stderr()))
    assert outcomes.keys() <= {"200", "503", "refused"}
    assert logged["200"] == outcomes["200"]
    assert logged.keys() <= {"200", "503"}
