"""Inference requests that are nearly right, over HTTP and gRPC."""

from __future__ import annotations

import gzip

from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.conformance.wire import (
    LENGTH_HEADER,
    Json,
    binary_tensor,
    model_path,
)
from tests.fuzz.campaign import campaign, try_inputs
from tests.fuzz.mutations import NUMBERS, changed_bytes, changed_json, to_json, values
from tests.fuzz.seeds import BINARY_REQUESTS, REQUESTS
from tests.fuzz.target import Target

LENGTHS = ("", "0", "-1", "1e3", "0x10", "9" * 30, " 7", "1.0", "\xb2", "1, 1")
SHAPES = st.lists(st.sampled_from(NUMBERS), max_size=40)


def infer_path(model: str) -> str:
    return model_path(model) + "/infer"


SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
NAMES = {
    **dict.fromkeys(
        ("name", "model_name"), ("simple", "identity_fp32", "identity_bytes", "datatypes", "classifier", "colours")
    ),
}


@campaign(short=150, long=3000)
def test_json(target: Target, inputs: int) -> None:
    """Members of any type, gone, twice, or unknown; numbers beyond any datatype; NaN; nesting; lone surrogates."""

    def requests(good: tuple[str, Json]) -> st.SearchStrategy[tuple[str, Json | bytes]]:
        model, document = good
        return st.tuples(st.just(model), st.one_of(changed_json(document), changed_bytes(to_json(document)), values()))

    try_inputs(
        "inference, JSON",
        inputs,
        st.sampled_from(REQUESTS).flatmap(requests),
        lambda request: target.post(infer_path(request[0]), to_json(request[1])),
        target.service.resident_bytes,
    )
    target.must_be_unharmed()


@campaign(short=60, long=1000)
def test_shapes(target: Target, inputs: int) -> None:
    """Negative, huge, overflowing, of too many axes; with JSON data, binary data and none at all."""

    def send(found: tuple[int, list[int], bool]) -> None:
        which, shape, binary = found
        model, document = REQUESTS[which]
        first, *others = document["inputs"]
        changed = document | {"inputs": [first | {"shape": shape}, *others]}
        if binary:
            changed = {"inputs": [binary_tensor(first["name"], first["datatype"], shape, 64)]}
            head = to_json(changed)
            target.post(infer_path(model), head + bytes(64), {LENGTH_HEADER: str(len(head))})
        else:
            target.post(infer_path(model), to_json(changed))

    cases = st.tuples(st.integers(0, len(REQUESTS) - 1), SHAPES, st.booleans())
    try_inputs("inference, shapes", inputs, cases, send, target.service.resident_bytes)
    target.must_be_unharmed()


@campaign(short=120, long=3000)
def test_binary_form(target: Target, inputs: int) -> None:
    """Lengths that lie: of the JSON, of the tensors, of the elements; in any coding of the body, or in none."""

    @st.composite
    def requests(draw: st.DrawFn) -> tuple[str, bytes, dict[str, str]]:
        model, document, tensors = draw(st.sampled_from(BINARY_REQUESTS))
        if draw(st.booleans()):
            first, *others = document["inputs"]
            lie = {"parameters": {"binary_data_size": draw(st.sampled_from(NUMBERS))}}
            document = {"inputs": [first | lie, *others]}
        if draw(st.booleans()):
            document = draw(changed_json(document))
        if draw(st.booleans()):
            tensors = draw(changed_bytes(tensors))
        head = to_json(document)
        near = (str(len(head)), str(len(head) + 1), str(len(head) - 1))
        headers = {LENGTH_HEADER: draw(st.sampled_from((*near[:1] * 8, *near, *LENGTHS)))}
        body = head + tensors
        coding = draw(st.sampled_from(("", "", "", "gzip", "deflate", "br", "gzip, gzip")))
        if coding:
            headers["Content-Encoding"] = coding
            if draw(st.booleans()):
                body = gzip.compress(body)
                if draw(st.booleans()):
                    body = draw(changed_bytes(body))
        return model, body, headers

    def send(request: tuple[str, bytes, dict[str, str]]) -> None:
        model, body, headers = request
        target.post(infer_path(model), body, headers)

    try_inputs("inference, binary form", inputs, requests(), send, target.service.resident_bytes)
    target.must_be_unharmed()
