"""The Open Inference Protocol and the classifier over gRPC: messages of every type, and bytes that are none."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from tritonclient.grpc import service_pb2

from service.pb.fovea.v1 import classifier_pb2
from tests.conformance.wire import infer_request, simple_request
from tests.fuzz.campaign import campaign, try_inputs
from tests.fuzz.mutations import NUMBERS, changed_bytes, messages
from tests.fuzz.target import INFER, TO_LOAD, Target
from tests.repositories import picture

SERVICES = (
    service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    classifier_pb2.DESCRIPTOR.services_by_name["Classifier"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
    if method.name != "Watch"  # ends never
}
NAMES = (
    *("simple", "identity_fp32", "identity_bytes", "classifier", "colours", "nothing"),
    *("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1", "SCORES", "LOGITS", "pixels", "region"),
    *("INT32", "FP32", "FP16", "BYTES", "UINT8", "BF16", "1"),
    *("log_info", "log_verbose_level", "log_format", "log_file", "trace_level", "trace_rate", "trace_count"),
)
LOADING = tuple(method for method in METHODS if "RepositoryModel" in method)

GOOD = [
    simple_request(outputs=["OUTPUT0"], id="1"),
    infer_request("identity_fp32", [("INPUT0", "FP32", [1, 2])], [bytes(8)], ["OUTPUT0"]),
    infer_request("identity_bytes", [("INPUT0", "BYTES", [2, 1])], [b"\1\0\0\0a\0\0\0\0"]),
    infer_request("colours", [("pixels", "BYTES", [1])], [len(picture("red")).to_bytes(4, "little") + picture("red")]),
    infer_request("unbatched", [("INPUT0", "FP32", [2, 3])], [bytes(24)]),
]
"""Requests for ModelInfer."""
SIZES = [number for number in NUMBERS if abs(number) < 2**63]
CLASSIFY = classifier_pb2.ClassifyRequest(images=[picture("red"), picture("lime")], top_k=2, id="1")


def calls(method: str, not_to_load: frozenset[str]) -> st.SearchStrategy[tuple[str, list[Any]]]:
    descriptor, several = METHODS[method].input_type, METHODS[method].client_streaming
    if method in LOADING:
        message = messages(descriptor, TO_LOAD).filter(lambda request: request.model_name not in not_to_load)
    else:
        message = messages(descriptor, NAMES)
    return st.tuples(st.just(method), st.lists(message, max_size=3) if several else message.map(lambda one: [one]))


@pytest.mark.parametrize("method", LOADING)
def test_models_that_must_go_on_answering_are_not_loaded_or_unloaded(target: Target, method: str) -> None:
    """Their names are among the odd strings too, and Hypothesis draws from those that imported modules have."""
    not_to_load = target.not_to_load()
    assert "simple" in not_to_load
    with pytest.raises(NoSuchExample):
        find(
            calls(method, not_to_load),
            lambda call: call[1][0].model_name in not_to_load,
            settings=settings(max_examples=1000, derandomize=True, database=None, deadline=None),
        )


@campaign(short=300, long=6000)
def test_messages(target: Target, inputs: int) -> None:
    """Every method of every service, with any of its fields set to anything, over and over."""
    not_to_load = target.not_to_load()
    try_inputs(
        "gRPC, messages",
        inputs,
        st.sampled_from(sorted(METHODS)).flatmap(lambda method: calls(method, not_to_load)),
        lambda call: target.call(call[0], [message.SerializeToString() for message in call[1]]),
        target.service.resident_bytes,
    )
    target.must_be_unharmed()


@campaign(short=150, long=3000)
def test_inference_requests(target: Target, inputs: int) -> None:
    """Requests that a model takes, but for a field or two; in raw_input_contents too."""

    @st.composite
    def requests(draw: st.DrawFn) -> Any:
        request: Any = service_pb2.ModelInferRequest()
        request.CopyFrom(draw(st.sampled_from(GOOD)))
        if draw(st.booleans()):
            # Lists are merged: more inputs, outputs and contents than there were.
            request.MergeFrom(draw(messages(request.DESCRIPTOR, NAMES)))
        if draw(st.booleans()) and request.inputs:
            request.inputs[0].MergeFrom(draw(messages(request.inputs[0].DESCRIPTOR, NAMES)))
        if draw(st.booleans()) and request.inputs:
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(draw(st.lists(st.sampled_from(SIZES), max_size=40)))
        if draw(st.booleans()) and request.raw_input_contents:
            request.raw_input_contents[0] = draw(changed_bytes(request.raw_input_contents[0]))
        return request

    try_inputs(
        "gRPC, inference requests",
        inputs,
        requests(),
        lambda request: target.call(INFER, [request.SerializeToString()]),
        target.service.resident_bytes,
    )
    target.must_be_unharmed()


@campaign(short=150, long=4000)
def test_bytes(target: Target, inputs: int) -> None:
    """Messages with a few bytes changed. What is a message all the same may be answered."""

    def send(call: tuple[str, bytes]) -> None:
        method, content = call
        try:
            GetMessageClass(METHODS[method].input_type).FromString(content)
        except DecodeError:
            assert target.call(method, [content]) is grpc.StatusCode.INVALID_ARGUMENT
        else:
            target.call(method, [content])

    calls = st.one_of(
        st.tuples(
            st.just(INFER),
            st.sampled_from(GOOD).flatmap(lambda request: changed_bytes(request.SerializeToString())),
        ),
        st.tuples(st.just("/fovea.v1.Classifier/Classify"), changed_bytes(CLASSIFY.SerializeToString())),
        st.tuples(st.sampled_from(sorted(METHODS)), st.binary(max_size=40)),
    )
    try_inputs("gRPC, bytes", inputs, calls, send, target.service.resident_bytes)
    target.must_be_unharmed()
