"""The gRPC API, by real calls to a real service."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub as Stub
from tests.repositories import LABELS, picture
from tests.service.conftest import MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES, MAX_IMAGES, MAX_REQUEST_BYTES, NO_LIMITS
from tests.service.launch import RunningService, until, wait_for_metric
from tests.service.pictures import hostile_images

RED, GREEN, BLUE = picture("red"), picture("lime"), picture("blue")
HOSTILE = hostile_images(MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES)
TIMEOUT_S = 60
INVALID, TOO_LARGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def aio(service: RunningService) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(service.grpc, options=NO_LIMITS) as channel:
        yield Stub(channel)


@pytest.fixture
async def slow(slow_service: RunningService) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(slow_service.grpc, options=NO_LIMITS) as channel:
        yield Stub(channel)


def classify(stub: Stub, *images: bytes, **options: Any) -> pb.ClassifyResponse:
    response: pb.ClassifyResponse = stub.Classify(pb.ClassifyRequest(images=images, **options), timeout=TIMEOUT_S)
    return response


def tops(response: pb.ClassifyResponse) -> list[str]:
    return [result.classification.predictions[0].label for result in response.results]


def refused(code: grpc.StatusCode, stub: Stub, *images: bytes, **options: Any) -> str:
    """The details of a call that must fail with a code."""
    with pytest.raises(grpc.RpcError) as raised:
        classify(stub, *images, **options)
    assert raised.value.code() == code, raised.value
    return str(raised.value.details())


# Classify


def test_one_image(stub: Stub) -> None:
    response = classify(stub, RED, id="mine")
    assert (response.id, response.model, response.version) == ("mine", "colours", "3")
    (result,) = response.results
    predictions = result.classification.predictions
    assert [(p.label, p.index) for p in predictions] == [("red", 0), ("green", 1), ("blue", 2)]
    assert sum(p.probability for p in predictions) == pytest.approx(1)
    timings = result.classification.timings
    assert timings.total_us >= timings.inference_us > 0
    assert timings.decode_us > 0
    assert timings.batch_size == 1


def test_several_images_keep_their_order(stub: Stub) -> None:
    assert tops(classify(stub, *[GREEN, RED, BLUE, RED] * 10)) == ["green", "red", "blue", "red"] * 10


def test_model_and_version(stub: Stub) -> None:
    assert classify(stub, RED, model="colours", version="1").version == "1"
    unknown = refused(grpc.StatusCode.NOT_FOUND, stub, RED, model="x")
    assert unknown.startswith("Request for unknown model: 'x' is not found")
    unknown = refused(grpc.StatusCode.NOT_FOUND, stub, RED, version="2")
    assert unknown.startswith("Request for unknown model: 'colours' version 2 is not found")


@pytest.mark.parametrize(("top_k", "count"), [(0, 3), (1, 1), (2, 2), (2**32 - 1, 3)])
def test_top_k(stub: Stub, top_k: int, count: int) -> None:
    (result,) = classify(stub, RED, top_k=top_k).results
    assert len(result.classification.predictions) == count


def test_one_bad_image_leaves_its_neighbours_alone(stub: Stub) -> None:
    first, bad, large, last = classify(stub, RED, b"nonsense", bytes(MAX_IMAGE_BYTES + 1), BLUE).results
    assert first.classification.predictions[0].label == "red"
    assert last.classification.predictions[0].label == "blue"
    assert bad.WhichOneof("outcome") == large.WhichOneof("outcome") == "error"
    assert (bad.error.code, large.error.code) == (INVALID.value[0], TOO_LARGE.value[0])
    assert bad.error.message.startswith("image 2 of 4: not an image: must be one of JPEG")
    assert large.error.message.startswith(f"image 3 of 4: {MAX_IMAGE_BYTES + 1} bytes")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images(stub: Stub, name: str) -> None:
    content, reason, too_large = HOSTILE[name]
    assert re.search(reason, refused(TOO_LARGE if too_large else INVALID, stub, content))
    assert tops(classify(stub, RED)) == ["red"]


def test_requests_that_are_wrong_as_a_whole(stub: Stub) -> None:
    assert "no images" in refused(INVALID, stub)
    assert f"{MAX_IMAGES + 1} images: a request may have at most" in refused(TOO_LARGE, stub, *[RED] * (MAX_IMAGES + 1))


def test_no_model_named_where_there_are_several(broken_service: RunningService) -> None:
    with grpc.insecure_channel(broken_service.grpc) as channel:
        assert refused(INVALID, Stub(channel), RED).startswith("no model named: must be one of colours, labels, ")
        assert tops(classify(Stub(channel), RED, model="colours")) == ["red"]
        details = refused(grpc.StatusCode.UNAVAILABLE, Stub(channel), RED, model="logits")
        assert "model 'logits' is not ready: golden sample: logits differ" in details


@pytest.mark.parametrize("length", [10_000, 2**20])
def test_a_long_model_name_is_refused_in_few_words(stub: Stub, length: int) -> None:
    details = refused(grpc.StatusCode.NOT_FOUND, stub, RED, model="x" * length)
    assert details.startswith("Request for unknown model: 'xxx")
    assert len(details) < 5000


def test_an_error_in_every_script(stub: Stub) -> None:
    assert "'модель\\n猫'" in refused(grpc.StatusCode.NOT_FOUND, stub, RED, model="модель\n猫")


def raw_call(channel: grpc.Channel, method: str) -> Any:
    return channel.unary_unary(f"/fovea.v1.Classifier/{method}")


def test_a_method_that_is_not_there(service: RunningService) -> None:
    with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError) as raised:
        raw_call(channel, "Nothing")(b"", timeout=TIMEOUT_S)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Sizes


def test_a_message_larger_than_grpcs_own_limit(stub: Stub) -> None:
    padded = RED + bytes(5 * 2**20)
    assert tops(classify(stub, padded, padded)) == ["red", "red"]


def test_a_message_larger_than_the_setting(stub: Stub) -> None:
    details = refused(TOO_LARGE, stub, bytes(MAX_REQUEST_BYTES + 1))
    assert str(MAX_REQUEST_BYTES) in details
    assert tops(classify(stub, RED)) == ["red"]


# Streams


def ask(number: int, *images: bytes, **options: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(id=str(number), images=images, **options)


def test_a_stream_answers_each_request_under_its_id(stub: Stub) -> None:
    colours = [RED, GREEN, BLUE] * 100
    answers = list(stub.ClassifyStream(iter([ask(n, image) for n, image in enumerate(colours)]), timeout=TIMEOUT_S))
    by_id = {int(answer.id): tops(answer.response)[0] for answer in answers}
    assert len(answers) == 300
    assert by_id == {number: ("red", "green", "blue")[number % 3] for number in range(300)}
    assert all(answer.response.id == answer.id for answer in answers)


def test_errors_do_not_end_a_stream(stub: Stub) -> None:
    requests = [
        ask(1, RED), ask(2, b"nonsense"), ask(3), ask(4, RED, model="x"),
        ask(5, RED, b"nonsense"), ask(6, bytes(MAX_IMAGE_BYTES + 1)), ask(7, BLUE),
    ]  # fmt: skip
    answers = {int(answer.id): answer for answer in stub.ClassifyStream(iter(requests), timeout=TIMEOUT_S)}
    assert answers.keys() == set(range(1, 8))
    assert {n: answer.error.code for n, answer in answers.items() if answer.WhichOneof("outcome") == "error"} == {
        2: INVALID.value[0],
        3: INVALID.value[0],
        4: grpc.StatusCode.NOT_FOUND.value[0],
        6: TOO_LARGE.value[0],
    }
    assert "not an image" in answers[2].error.message
    assert [result.WhichOneof("outcome") for result in answers[5].response.results] == ["classification", "error"]
    assert (tops(answers[1].response), tops(answers[7].response)) == (["red"], ["blue"])


def test_a_stream_of_nothing_ends(stub: Stub) -> None:
    assert list(stub.ClassifyStream(iter([]), timeout=TIMEOUT_S)) == []


async def test_a_stream_is_a_conversation_and_ends_by_half_close(aio: Stub) -> None:
    call = aio.ClassifyStream(timeout=TIMEOUT_S)
    for number, (image, label) in enumerate([(RED, "red"), (BLUE, "blue"), (GREEN, "green")]):
        await call.write(ask(number, image))
        answer = await call.read()
        assert (answer.id, tops(answer.response)) == (str(number), [label])
    await call.write(ask(9, RED))
    await call.done_writing()
    assert (await call.read()).id == "9"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_answers_of_a_stream_come_as_they_are_ready(slow: Stub) -> None:
    call = slow.ClassifyStream(timeout=TIMEOUT_S)
    await call.write(ask(1, RED, RED, RED, RED, model="slower"))
    await call.write(ask(2, RED, model="colours"))
    await call.done_writing()
    assert [(await call.read()).id, (await call.read()).id] == ["2", "1"]


async def test_a_cancelled_stream_leaves_the_service_in_order(service: RunningService, aio: Stub) -> None:
    call = aio.ClassifyStream()
    for number in range(20):
        await call.write(ask(number, RED))
    await call.read()
    call.cancel()
    assert tops(await aio.Classify(ask(1, GREEN), timeout=TIMEOUT_S)) == ["green"]
    await wait_for_zero(service, "fovea_requests_in_flight", protocol="grpc")
    assert "Traceback" not in service.stderr()


async def wait_for_zero(service: RunningService, name: str, **labels: str) -> None:
    await until(lambda: service.metric(name, **labels) == 0)


# Deadlines, cancellation, overload


async def test_a_deadline_is_honoured_and_costs_no_inference(slow_service: RunningService, slow: Stub) -> None:
    images = slow_service.metric("fovea_batch_size_sum", model="slower")
    working = asyncio.create_task(call_of(slow.Classify(ask(1, RED, RED, RED, RED, model="slower"), timeout=TIMEOUT_S)))
    await wait_for_metric(slow_service, images + 2, "fovea_batch_size_sum", model="slower")
    late = [call_of(slow.Classify(ask(2, RED, model="slower"), timeout=0.02)) for _ in range(4)]
    for outcome in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(outcome, grpc.aio.AioRpcError)
        assert outcome.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert tops(await working) == ["red"] * 4
    await slow.Classify(ask(3, RED, model="slower"), timeout=TIMEOUT_S)
    # One of the late ones may have found an idle instance between two batches.
    assert slow_service.metric("fovea_batch_size_sum", model="slower") - images <= 4 + 1 + 2


async def call_of(call: Any) -> Any:
    return await call


async def test_overload_is_unavailable_and_passes(slow_service: RunningService, slow: Stub) -> None:
    rejected = slow_service.metric("fovea_requests_rejected_total", protocol="grpc")
    calls = [call_of(slow.Classify(ask(n, RED), timeout=TIMEOUT_S)) for n in range(40)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert 0 < len(failed) <= 32
    for error in failed:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert error.details() == "Exceeds maximum queue size: 8 rows are waiting"
    assert tops(await slow.Classify(ask(1, BLUE), timeout=TIMEOUT_S)) == ["blue"]
    assert slow_service.metric("fovea_requests_rejected_total", protocol="grpc") - rejected == len(failed)


async def test_overload_on_a_stream_does_not_end_it(slow: Stub) -> None:
    def requests() -> Iterator[pb.ClassifyRequest]:
        for number in range(40):
            yield ask(number, RED)

    answers = [answer async for answer in slow.ClassifyStream(requests(), timeout=TIMEOUT_S)]
    assert sorted(int(answer.id) for answer in answers) == list(range(40))
    codes = {answer.error.code for answer in answers if answer.WhichOneof("outcome") == "error"}
    assert codes == {grpc.StatusCode.UNAVAILABLE.value[0]}


async def test_many_images_do_not_starve_a_single_one(slow_service: RunningService, slow: Stub) -> None:
    many = asyncio.create_task(call_of(slow.Classify(ask(1, *[GREEN] * 24, model="slower"), timeout=TIMEOUT_S)))
    await wait_for_metric(slow_service, 1, "fovea_requests_in_flight", protocol="grpc")
    assert tops(await slow.Classify(ask(2, RED, model="slower"), timeout=TIMEOUT_S)) == ["red"]
    assert not many.done()
    assert tops(await many) == ["green"] * 24


# Models, health, reflection, request ids


def test_models(stub: Stub) -> None:
    (model,) = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
    assert model == stub.GetModel(pb.GetModelRequest(name="colours"), timeout=TIMEOUT_S).model
    assert [version.version for version in model.versions] == ["1", "3"]
    version = model.versions[0]
    assert (version.state, version.reason) == (pb.MODEL_STATE_READY, "")
    assert list(version.labels) == list(LABELS)
    assert (list(version.input_shape), version.max_batch_size) == ([8, 8, 3], 8)
    assert version.execution_provider == "CPUExecutionProvider"
    assert version.proven
    assert version.instances >= 1
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModel(pb.GetModelRequest(name="x"), timeout=TIMEOUT_S)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_broken_models_show_their_reasons(broken_service: RunningService) -> None:
    with grpc.insecure_channel(broken_service.grpc) as channel:
        models = Stub(channel).ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    reasons = {model.name: model.versions[0].reason for model in models}
    assert reasons.pop("colours") == ""
    assert "config.pbtxt: 1:17" in reasons["no_config"]
    assert "golden sample: logits differ" in reasons["logits"]
    assert all(reasons.values())
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "fovea.v1.Classifier"])
def test_health(service: RunningService, name: str) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT_S)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection(service: RunningService) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        file = database.FindFileContainingSymbol("fovea.v1.Classifier")
    assert services >= {"fovea.v1.Classifier", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert [method.name for method in file.service[0].method] == [
        "Classify",
        "ClassifyStream",
        "Embed",
        "ListModels",
        "GetModel",
    ]


def request_id_of(call: Any) -> str:
    return str(dict(call.trailing_metadata())["x-request-id"])


def test_request_ids(stub: Stub) -> None:
    given = [("x-request-id", "abc-123")]
    _, call = stub.Classify.with_call(ask(1, RED), metadata=given, timeout=TIMEOUT_S)
    assert request_id_of(call) == "abc-123"
    _, call = stub.Classify.with_call(ask(1, RED), timeout=TIMEOUT_S)
    assert re.fullmatch("[0-9a-f]{32}", request_id_of(call))
    _, call = stub.Classify.with_call(ask(1, RED), metadata=[("x-request-id", "x" * 200)], timeout=TIMEOUT_S)
    assert re.fullmatch("[0-9a-f]{32}", request_id_of(call))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Classify(ask(1, b"nonsense"), metadata=given, timeout=TIMEOUT_S)
    assert request_id_of(raised.value) == "abc-123"
    stream = stub.ClassifyStream(iter([ask(1, RED)]), metadata=given, timeout=TIMEOUT_S)
    assert len(list(stream)) == 1
    assert request_id_of(stream) == "abc-123"


def test_requests_are_counted_by_code(service: RunningService, stub: Stub) -> None:
    def counted() -> dict[str, float]:
        codes = ("OK", "INVALID_ARGUMENT", "NOT_FOUND")
        return {code: service.metric("fovea_requests_total", protocol="grpc", code=code) for code in codes}

    before = counted()
    classify(stub, RED)
    refused(INVALID, stub, b"nonsense")
    list(stub.ClassifyStream(iter([ask(1, RED), ask(2, RED, model="x")]), timeout=TIMEOUT_S))
    after = counted()
    assert {code: after[code] - before[code] for code in before} == {"OK": 2, "INVALID_ARGUMENT": 1, "NOT_FOUND": 1}


def test_a_second_connection_does_not_disturb_the_first(service: RunningService, stub: Stub) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        other = Stub(channel)
        assert tops(classify(other, RED)) == tops(classify(stub, RED)) == ["red"]
    assert tops(classify(stub, BLUE)) == ["blue"]
