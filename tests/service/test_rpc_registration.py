from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from service.pb.fovea.v1 import classifier_pb2 as pb
from tests.repositories import picture
from tests.service.launch import RunningService

TIMEOUT_S = 60
NO_MESSAGE = b"\xff" * 100
IDENTITY = [("x-request-id", "abc-123")]
UNARY = (
    "fovea.v1.Classifier/Classify",
    "fovea.v1.Classifier/ListModels",
    "inference.GRPCInferenceService/ModelInfer",
    "inference.GRPCInferenceService/ServerLive",
    "grpc.health.v1.Health/Check",
)
STREAMS = (
    "fovea.v1.Classifier/ClassifyStream",
    "inference.GRPCInferenceService/ModelStreamInfer",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.grpc) as found:
        yield found


def refused(service: RunningService, call: Callable[[], Any]) -> Any:
    """The error of a call whose bytes are no message, which is counted as the client's."""

    def counted() -> float:
        return service.metric("fovea_requests_total", protocol="grpc", code="INVALID_ARGUMENT")

    before = counted()
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("the bytes sent are no message of this method: ")
    assert dict(error.trailing_metadata()) == dict(IDENTITY)
    assert counted() == before + 1
    return error


@pytest.mark.parametrize("method", UNARY)
def test_one_request(service: RunningService, channel: grpc.Channel, method: str) -> None:
    call: Any = channel.unary_unary(f"/{method}")
    refused(service, lambda: call(NO_MESSAGE, metadata=IDENTITY, timeout=TIMEOUT_S))


def test_a_health_watch(service: RunningService, channel: grpc.Channel) -> None:
    watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
    refused(service, lambda: list(watch(NO_MESSAGE, metadata=IDENTITY, timeout=TIMEOUT_S)))


@pytest.mark.parametrize("method", STREAMS)
def test_a_stream(service: RunningService, channel: grpc.Channel, method: str) -> None:
    stream: Any = channel.stream_stream(f"/{method}")
    refused(service, lambda: list(stream(iter([NO_MESSAGE]), metadata=IDENTITY, timeout=TIMEOUT_S)))


def test_a_stream_answers_what_came_before(service: RunningService, channel: grpc.Channel) -> None:
    stream: Any = channel.stream_stream(f"/{STREAMS[0]}")
    good = [pb.ClassifyRequest(id=str(n), images=[picture("red")]).SerializeToString() for n in range(3)]
    answers: list[bytes] = []

    def call() -> None:
        answers.extend(stream(iter([*good, NO_MESSAGE, good[0]]), metadata=IDENTITY, timeout=TIMEOUT_S))

    refused(service, call)
    assert {pb.ClassifyStreamResponse.FromString(answer).id for answer in answers} == {"0", "1", "2"}


def test_a_refusal_names_the_message(service: RunningService, channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary(f"/{UNARY[2]}")
    error = refused(service, lambda: call(NO_MESSAGE, metadata=IDENTITY, timeout=TIMEOUT_S))
    assert service_pb2.ModelInferRequest.DESCRIPTOR.full_name in error.details()
    assert "Traceback" not in service.stderr()
