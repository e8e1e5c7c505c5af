"""Known calls of the native gRPC transport: answered without a task, as the servicer would have answered them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from onnx import helper
from tritonclient.grpc import service_pb2 as pb

from service.rpc import known_infer
from tests.conformance.models import Value, write_classifier, write_identity, write_lookup, write_model, write_simple
from tests.conformance.wire import bytes_tensor, infer_request, simple_request
from tests.service.inside import Inside, inside

pytest.importorskip("pygrpc_native")
pytestmark = pytest.mark.asyncio(loop_scope="module")

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
ALONE = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
OVERRIDABLE = "default_timeout_microseconds: 60000000 allow_timeout_override: true"
PATIENT = f"dynamic_batching {{ default_queue_policy {{ {OVERRIDABLE} }} }}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    """ "split" has one input and two outputs; "alone" has room for one that waits."""
    repository = tmp_path_factory.mktemp("known")
    write_simple(repository)
    write_split(repository)
    write_identity(repository, "open", "FP32", (-1, -1))
    write_identity(repository, "half", "FP16", (-1,))
    write_identity(repository, "text", "BYTES", (1,))
    write_identity(repository, "unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    write_identity(repository, "pair", "FP32", (2,))
    write_identity(repository, "alone", "FP32", (2,), max_batch_size=1, extra=ALONE)
    write_identity(repository, "patient", "FP32", (2,), max_batch_size=1, extra=PATIENT)
    write_classifier(repository)
    write_lookup(repository)
    settings = {"trace_file": repository.parent / "trace.json", "log_and_trace_changes": True}
    async with inside(repository, model_control_mode="explicit", grpc_transport="native", **settings) as started:
        yield started


def write_split(repository: Path) -> None:
    nodes = [helper.make_node("Neg", ["INPUT0"], ["MINUS"]), helper.make_node("Identity", ["INPUT0"], ["PLUS"])]
    outputs = [Value("MINUS", "FP32", (-1,)), Value("PLUS", "FP32", (-1,))]
    write_model(repository, "split", [Value("INPUT0", "FP32", (-1,))], outputs, {1: (nodes, [])})


@pytest_asyncio.fixture(loop_scope="module")
async def service(shared: Inside) -> AsyncIterator[Inside]:
    shared.known.clear()
    yield shared
    shared.gate.open()
    await in_flight(shared, 0)


@pytest_asyncio.fixture(loop_scope="module")
async def client(service: Inside) -> AsyncIterator[Client]:
    async with Client(service) as client:
        yield client


Outcome = tuple[grpc.StatusCode, str, bytes]


class Client:
    """Sends messages as they are."""

    def __init__(self, service: Inside) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(service.running.grpc_address, options=options)
        self._infer: Any = self._channel.unary_unary(METHOD)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def begin(self, message: bytes, **options: Any) -> Any:
        return self._infer(message, **{"timeout": 60, **options})

    async def ask(self, message: bytes, **options: Any) -> Outcome:
        return await outcome(self.begin(message, **options))


async def outcome(call: Any) -> Outcome:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", b""
    return OK, "", answer


async def in_flight(service: Inside, calls: int) -> None:
    async with asyncio.timeout(60):
        while await service.metric("fovea_requests_in_flight", protocol="grpc") != calls:
            pass


def one(
    model: str, values: np.ndarray[Any, Any], outputs: Sequence[str] = (), *, name: str = "INPUT0", **members: Any
) -> bytes:
    """A message with one tensor."""
    datatype = {"f2": "FP16", "f4": "FP32", "i8": "INT64"}[values.dtype.str[1:]]
    request = infer_request(model, [(name, datatype, values.shape)], [values.tobytes()], outputs, **members)
    message: bytes = request.SerializeToString()
    return message


def with_number(message: bytes, name: str, value: int) -> bytes:
    request = pb.ModelInferRequest.FromString(message)
    request.parameters[name].int64_param = value
    return bytes(request.SerializeToString(deterministic=True))


def ordinary(message: bytes) -> bytes:
    """The same with a field that nobody knows before it: it is answered as without, and by the servicer."""
    return b"\xc0\x3e\x01" + message


PAIR = np.array([[1, 2]], "<f4")


async def know(service: Inside, client: Client, message: bytes) -> bytes:
    """Have a call answered until it is known."""
    for _ in range(2):
        service.known.clear()
        code, text, answer = await client.ask(message)
        assert code == OK, text
    assert len(service.known) == 1
    service.known.clear()
    return answer


# The answer


@pytest.mark.parametrize(
    ("model", "values", "options"),
    [
        ("pair", PAIR, {}),
        ("pair", np.zeros((7, 2), "<f4"), {"model_version": "1"}),
        ("split", np.zeros((2, 100), "<f4"), {}),
        ("split", np.zeros((2, 3), "<f4"), {"outputs": ["PLUS", "MINUS"]}),
        ("split", np.zeros((1, 3), "<f4"), {"outputs": ["PLUS"]}),
        ("split", np.zeros((1, 3), "<f4"), {"outputs": ["PLUS", "MINUS", "PLUS"]}),
        ("open", np.zeros((1, 2, 3), "<f4"), {}),
        ("open", np.zeros((1, 3, 2), "<f4"), {}),
        ("open", np.zeros((1, 200, 300), "<f4"), {}),
        ("half", np.zeros((1, 5), "<f2"), {}),
        ("unbatched", np.zeros((2, 3), "<f4"), {}),
        ("classifier", np.zeros((2, 4), "<f4"), {"name": "SCORES"}),
        ("classifier", np.zeros((2, 4), "<f4"), {"name": "SCORES", "model_version": "1"}),
    ],
)
async def test_known_calls_are_answered_as_others(
    service: Inside, client: Client, model: str, values: np.ndarray[Any, Any], options: dict[str, Any]
) -> None:
    assert (await client.ask(one(model, values, **options)))[0] == OK
    assert not service.known
    for seed in range(3):
        tensor = np.random.default_rng(seed).integers(0, 100, values.shape).astype(values.dtype)
        message = one(model, tensor, **options)
        known = await client.ask(message)
        assert len(service.known) == seed + 1
        assert known == await client.ask(ordinary(message))
        assert len(service.known) == seed + 1
        raw = pb.ModelInferResponse.FromString(known[2]).raw_output_contents
        factor = 2 if model == "classifier" and "model_version" not in options else 1
        assert raw[0] in [(sign * factor * tensor).tobytes() for sign in (1, -1)]


async def test_messages_of_one_length_are_told_apart(service: Inside, client: Client) -> None:
    shapes = [(1, 2, 6), (1, 6, 2), (1, 3, 4), (1, 4, 3), (2, 2, 3), (2, 3, 2), (3, 2, 2)]
    for known in (False, True, True):
        for shape in shapes:
            values = np.random.default_rng(sum(shape)).random(shape, np.float32)
            _, _, answer = await client.ask(one("open", values))
            response = pb.ModelInferResponse.FromString(answer)
            assert tuple(response.outputs[0].shape) == shape
            assert response.raw_output_contents[0] == values.tobytes()
        assert len(service.known) == (len(shapes) if known else 0)
        service.known.clear()


@pytest.mark.parametrize("failing", [False, True])
async def test_a_request_id_is_given_back_or_made(service: Inside, client: Client, failing: bool) -> None:
    await know(service, client, one("lookup", np.array([[1]], "<i8"), name="INDEX"))
    message = one("lookup", np.array([[99 if failing else 1]], "<i8"), name="INDEX")
    for each in (message, ordinary(message)):
        for given in ("mine", None, 129 * "a"):
            call = client.begin(each, metadata=[("x-request-id", given)] if given else [])
            code, _, _ = await outcome(call)
            identity = dict(await call.trailing_metadata())["x-request-id"]
            assert (code == OK) == (not failing)
            assert identity == "mine" if given == "mine" else len(identity) == 32
    assert len(service.known) == 3


# What is another call


def typed() -> bytes:
    request = infer_request("pair", [("INPUT0", "FP32", [1, 2])])
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    return bytes(request.SerializeToString())


def classification() -> bytes:
    request = pb.ModelInferRequest.FromString(one("classifier", np.zeros((1, 4), "<f4"), ["LOGITS"], name="SCORES"))
    request.outputs[0].parameters["classification"].int64_param = 2
    return bytes(request.SerializeToString())


def text() -> bytes:
    request = infer_request("text", [("INPUT0", "BYTES", [1, 1])], [bytes_tensor([b"a"])])
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    "message",
    [
        one("pair", PAIR, id="a"),
        typed(),
        classification(),
        text(),
        simple_request().SerializeToString(),
        ordinary(one("pair", PAIR)),
        one("pair", PAIR) + b"\xc0\x3e\x01",
        # What a field of nobody's ends with looks like the tensor.
        one("pair", PAIR) + b"\xc2\x3e\x08" + PAIR.tobytes(),
    ],
)
async def test_what_is_never_known(service: Inside, client: Client, message: bytes) -> None:
    answers = {await client.ask(message) for _ in range(3)}
    assert len(answers) == 1
    assert answers.pop()[0] == OK
    assert not service.known


async def test_a_tensor_of_another_size_is_refused_as_ever(service: Inside, client: Client) -> None:
    await know(service, client, one("pair", PAIR))
    whole = one("pair", PAIR)
    request = pb.ModelInferRequest.FromString(whole)
    for size in (0, 4, 7, 9, 12):
        request.raw_input_contents[0] = bytes(size)
        message = request.SerializeToString()
        refused = await client.ask(message)
        assert refused == await client.ask(ordinary(message))
        assert refused[0] == grpc.StatusCode.INVALID_ARGUMENT
    # As long as a known one, and beginning otherwise.
    request.inputs[0].shape[:] = [2, 1]
    request.raw_input_contents[0] = PAIR.tobytes()
    assert (await client.ask(request.SerializeToString()))[0] == grpc.StatusCode.INVALID_ARGUMENT
    # Bytes that are no message.
    assert (await client.ask(whole[:-1]))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert (await client.ask(whole + b"\0"))[0] != OK
    assert not service.known
    await know(service, client, whole)


async def test_beginnings_are_bounded(service: Inside, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one length, others of which are forgotten before any of another."""
    monkeypatch.setattr(known_infer, "MAX_OF_ONE_SIZE", 2)
    other = one("pair", np.zeros((3, 2), "<f4"))
    same = [one("open", np.zeros(shape, "<f4")) for shape in ((1, 7, 5), (1, 5, 7), (5, 1, 7))]
    for message in (other, *same):
        await know(service, client, message)
    for message, known in ((other, 1), (same[2], 2), (same[0], 2)):
        assert (await client.ask(message))[0] == OK
        assert len(service.known) == known


async def test_beginnings_of_all_lengths_are_bounded(
    service: Inside, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_infer, "MAX_FORMS", 1)
    messages = [one("pair", np.zeros((rows, 2), "<f4")) for rows in (1, 2)]
    for message in messages * 2:
        await know(service, client, message)
        assert (await client.ask(message))[0] == OK
        assert len(service.known) == 1
    service.known.clear()
    assert (await client.ask(messages[0]))[0] == OK
    assert not service.known


async def test_many_at_once_are_answered_each_by_its_own(service: Inside, client: Client) -> None:
    await know(service, client, one("pair", PAIR))
    values = [np.full((1, 2), number, "<f4") for number in range(300)]
    messages = [one("pair", each) for each in values]
    sent = [ordinary(message) if number % 7 == 0 else message for number, message in enumerate(messages)]
    found = await asyncio.gather(*(client.ask(message) for message in sent))
    for expected, (code, _, answer) in zip(values, found, strict=True):
        assert code == OK
        assert pb.ModelInferResponse.FromString(answer).raw_output_contents[0] == expected.tobytes()
    assert len(service.known) == sum(bool(number % 7) for number in range(300))


# Versions that come and go


async def test_the_version_that_is_served_answers(service: Inside, client: Client) -> None:
    repository = service.running.repository
    message = one("open", np.ones((1, 2, 2), "<f4"))
    await know(service, client, message)
    # Loaded again with another shape of its rows.
    config = {"max_batch_size": 8, "input": [tensor("INPUT0")], "output": [tensor("OUTPUT0")]}
    await repository.load("open", override=json.dumps(config))
    refused = await client.ask(message)
    assert refused == await client.ask(ordinary(message))
    assert (refused[0], "unexpected shape" in refused[1]) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    await repository.load("open")
    await know(service, client, message)
    service.gate.shut()
    call = client.begin(message)
    await service.gate.reached()
    await repository.unload("open")
    code, details, _ = await client.ask(message)
    assert (code, "has no available versions" in details) == (grpc.StatusCode.NOT_FOUND, True)
    service.gate.open()
    assert (await outcome(call))[0] == OK
    await repository.load("open")


def tensor(name: str) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_FP32", "dims": [3, -1]}


# What goes wrong


async def test_a_full_queue_refuses_at_once(service: Inside, client: Client) -> None:
    message = one("alone", PAIR)
    await know(service, client, message)
    service.gate.shut()
    running = client.begin(message)
    await service.gate.reached()
    waiting = client.begin(message)
    await service.waits("alone", 1)
    refused = await client.ask(message)
    assert len(service.known) == 3
    assert refused == await client.ask(ordinary(message))
    assert (refused[0], "Exceeds maximum queue size" in refused[1]) == (UNAVAILABLE, True)
    service.gate.open()
    assert [(await outcome(call))[0] for call in (running, waiting)] == [OK, OK]


async def test_a_call_waits_no_longer_than_it_wants(service: Inside, client: Client) -> None:
    message = with_number(one("patient", PAIR), "timeout", 20_000)
    await know(service, client, message)
    service.gate.shut()
    running = client.begin(ordinary(one("patient", PAIR)))
    await service.gate.reached()
    assert await client.ask(message) == (UNAVAILABLE, "Request timeout expired", b"")
    assert len(service.known) == 1
    service.gate.open()
    assert (await outcome(running))[0] == OK
    assert service.gate.sizes == [1]


async def test_a_call_is_answered_in_time_or_not_at_all(service: Inside, client: Client) -> None:
    """By its own deadline, or by the service's, which comes first here."""
    async with inside(service.folder, request_timeout_s=2.0, grpc_transport="native") as hasty, Client(hasty) as other:
        message = one("alone", PAIR)
        await know(hasty, other, message)
        hasty.gate.shut()
        expected = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the result was there", b"")
        assert await other.ask(message) == expected
        assert len(hasty.known) == 1
        hasty.gate.open()
    cancelled = await service.metric("fovea_requests_total", protocol="grpc", model="patient")
    await know(service, client, one("patient", PAIR))
    service.gate.shut()
    running = client.begin(one("patient", PAIR))
    await service.gate.reached()
    assert (await client.ask(one("patient", PAIR), timeout=0.2))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    await in_flight(service, 1)
    service.gate.open()
    assert (await outcome(running))[0] == OK
    assert service.gate.sizes == [1]
    assert await service.metric("fovea_requests_total", protocol="grpc", model="patient") == cancelled + 4


async def test_a_call_that_is_given_up_costs_nothing(service: Inside, client: Client) -> None:
    cancelled = await service.metric("fovea_requests_total", protocol="grpc", model="patient", code="CANCELLED")
    await know(service, client, one("patient", PAIR))
    service.gate.shut()
    running = client.begin(one("patient", PAIR))
    await service.gate.reached()
    waiting = [client.begin(one("patient", PAIR)) for _ in range(3)]
    waiting.append(client.begin(ordinary(one("patient", PAIR))))
    await service.waits("patient", 4)
    for call in waiting:
        call.cancel()
    await in_flight(service, 1)
    assert await service.metric("fovea_requests_total", model="patient", code="CANCELLED") == cancelled + 4
    service.gate.open()
    assert (await outcome(running))[0] == OK
    assert (await client.ask(one("patient", PAIR)))[0] == OK
    assert service.gate.sizes == [1, 1]


async def test_a_batch_that_fails_fails_its_calls(service: Inside, client: Client) -> None:
    good, bad = (one("lookup", np.array([[index]], "<i8"), name="INDEX") for index in (2, 99))
    await know(service, client, good)
    failed = await client.ask(bad)
    assert len(service.known) == 1
    assert failed == await client.ask(ordinary(bad))
    assert failed[0] == grpc.StatusCode.INTERNAL
    assert failed[1].startswith("inference failed: ")
    assert (await client.ask(good))[0] == OK


# What is counted


async def test_known_calls_are_counted_as_others(service: Inside, client: Client) -> None:
    good, bad = (one("lookup", np.array([[index]], "<i8"), name="INDEX") for index in (1, 99))

    async def counted() -> list[float]:
        found = service.statistics("lookup")
        requests = "fovea_requests_total"
        return [
            found.success.count,
            found.fail.count,
            found.queue.count,
            found.inference_count,
            found.execution_count,
            await service.metric(requests, protocol="grpc", model="lookup", code="OK"),
            await service.metric(requests, protocol="grpc", model="lookup", code="INTERNAL"),
            await service.metric("fovea_batch_size_count", model="lookup"),
            await service.metric("fovea_batches_failed_total", model="lookup"),
        ]

    await know(service, client, good)
    counts = [await counted()]
    for way in (bytes, ordinary):
        for message in (good, good, bad):
            await client.ask(way(message))
        counts.append(await counted())
    assert len(service.known) == 3
    before, between, after = np.array(counts)
    assert (between - before).tolist() == (after - between).tolist() == [2, 1, 2, 2, 2, 2, 1, 3, 1]


async def test_calls_are_traced_as_soon_as_any_are(service: Inside, client: Client) -> None:
    await know(service, client, one("pair", PAIR))
    async with grpc.aio.insecure_channel(service.running.grpc_address) as channel:
        change: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/TraceSetting", pb.TraceSettingRequest.SerializeToString
        )
        for level, known in (("TIMESTAMPS", 0), ("OFF", 2)):
            request = pb.TraceSettingRequest()
            request.settings["trace_level"].value.append(level)
            await change(request, timeout=60)
            for _ in range(2):
                assert (await client.ask(one("pair", PAIR)))[0] == OK
            assert len(service.known) == known


# The end


async def test_calls_are_refused_as_soon_as_the_service_stops(service: Inside) -> None:
    message = one("alone", PAIR)
    async with inside(service.folder, grpc_transport="native") as stopping, Client(stopping) as client:
        await know(stopping, client, message)
        stopping.gate.shut()
        accepted = client.begin(message)
        await stopping.gate.reached()
        stopping.lifecycle.stopping.set()
        assert (await client.ask(message))[:2] == (UNAVAILABLE, "the service is stopping")
        stopping.gate.open()
        assert (await outcome(accepted))[0] == OK


async def test_the_grace_period_bounds_the_wait_of_known_calls(service: Inside) -> None:
    """What waits then is not inferred any more."""
    message = one("patient", PAIR)
    settings = {"grace_period_s": 0.1, "request_timeout_s": 600, "grpc_transport": "native"}
    async with inside(service.folder, **settings) as stopping, Client(stopping) as client:
        await know(stopping, client, message)
        stopping.gate.shut()
        calls = [client.begin(message) for _ in range(4)]
        await stopping.gate.reached()
        await stopping.waits("patient", 3)
        stopping.lifecycle.stopping.set()
        found = await asyncio.gather(*map(outcome, calls))
        assert {code for code, _, _ in found} <= {UNAVAILABLE, grpc.StatusCode.CANCELLED}
        await stopping.lifecycle.idle()
        stopping.gate.open()
    assert stopping.gate.sizes == [1]


async def test_a_call_that_is_cancelled_before_it_has_begun_is_forgotten(
    service: Inside, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a busy loop, which finds a call and its end waiting together."""
    from service.rpc.native import NativeServer

    await know(service, client, one("pair", PAIR))
    held: asyncio.Queue[tuple[NativeServer, Any]] = asyncio.Queue()
    on_events, inferred = NativeServer._on_events, service.statistics("pair").success.count

    def hold(server: NativeServer, events: list[Any]) -> None:
        for event in events:
            held.put_nowait((server, event))

    monkeypatch.setattr(NativeServer, "_on_events", hold)
    call = client.begin(one("pair", PAIR))
    server, begin = await held.get()
    call.cancel()
    _, end = await held.get()
    monkeypatch.undo()
    on_events(server, [begin, end])
    assert (len(service.known), server._flights, server._calls) == (1, {}, {})
    await in_flight(service, 0)
    await know(service, client, one("pair", PAIR))
    assert service.statistics("pair").success.count == inferred + 2


async def test_what_comes_on_a_stream_is_not_remembered(service: Inside, client: Client) -> None:
    """Nobody would ask for it: it would be work for nothing."""
    message = one("pair", np.ones((5, 2), "<f4"))
    async with grpc.aio.insecure_channel(service.running.grpc_address) as channel:
        infer: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        stream = infer(timeout=60)
        for _ in range(3):
            await stream.write(message)
            assert pb.ModelStreamInferResponse.FromString(await stream.read()).error_message == ""
        await stream.done_writing()
    assert (await client.ask(message))[0] == OK
    assert not service.known
