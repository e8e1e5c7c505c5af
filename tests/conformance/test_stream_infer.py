"""ModelStreamInfer: many requests and their answers in one call."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.conformance.wire import TIMEOUT_S, Grpc, simple_outputs, simple_request


def stream(grpc: Grpc, requests: Iterable[Any]) -> list[Any]:
    return list(grpc.stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S))


def numbered(count: int) -> Sequence[Any]:
    return [simple_request(id=str(number)) for number in range(count)]


def unknown(identifier: str) -> Any:
    request = simple_request(id=identifier)
    request.model_name = "nope"
    return request


def test_every_request_is_answered(grpc: Grpc) -> None:
    """Each answer is a ModelInferResponse of its own, with its request's id."""
    answers = stream(grpc, numbered(5))
    assert sorted(answer.infer_response.id for answer in answers) == ["0", "1", "2", "3", "4"]
    for answer in answers:
        assert answer.error_message == ""
        assert answer.infer_response.model_name == "simple"
        assert list(answer.infer_response.raw_output_contents) == [values.tobytes() for values in simple_outputs()]


def test_an_error_is_one_requests_own(grpc: Grpc) -> None:
    """error_message: the call goes on, and ends well."""
    answers = stream(grpc, [simple_request(id="1"), unknown("2"), simple_request(id="3")])
    errors = {answer.infer_response.id: answer.error_message for answer in answers}
    assert errors == {"1": "", "2": "Request for unknown model: 'nope' is not found", "3": ""}


def test_an_error_names_its_request(grpc: Grpc) -> None:
    """error_message: the answer beside it has the id, and nothing else."""
    (answer,) = stream(grpc, [unknown("mine")])
    assert answer.infer_response.id == "mine"
    assert not answer.infer_response.outputs
    assert answer.infer_response.model_name == ""


def test_a_malformed_request_is_an_error(grpc: Grpc) -> None:
    """error_message: for requests that the model refuses too."""
    request = simple_request(id="1")
    request.inputs[0].shape[1] = 8
    request.raw_input_contents[0] = bytes(32)
    (answer,) = stream(grpc, [request])
    assert "unexpected shape for input 'INPUT0' for model 'simple'" in answer.error_message


def test_a_stream_without_requests(grpc: Grpc) -> None:
    """A call that says nothing ends well."""
    assert stream(grpc, []) == []


def test_an_answer_comes_before_the_next_request(grpc: Grpc) -> None:
    """Answers do not wait for the end of the requests."""
    first_is_here = threading.Event()

    def requests() -> Iterator[Any]:
        yield simple_request(id="1")
        assert first_is_here.wait(TIMEOUT_S)
        yield simple_request(id="2")

    call = grpc.stub.ModelStreamInfer(requests(), timeout=TIMEOUT_S)
    first = next(call)
    first_is_here.set()
    assert [answer.infer_response.id for answer in (first, *call)] == ["1", "2"]


def test_the_final_answer_is_marked(grpc: Grpc) -> None:
    """triton_final_response: true with the last answer to a request."""
    request = simple_request(id="1")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    answers = stream(grpc, [request])
    assert answers[-1].infer_response.parameters["triton_final_response"].bool_param
    assert len(answers) == 1


def test_a_cancelled_stream_leaves_the_server_working(grpc: Grpc) -> None:
    """A client may go at any time."""
    call = grpc.stub.ModelStreamInfer(iter(numbered(20)), timeout=TIMEOUT_S)
    next(call)
    call.cancel()
    assert len(stream(grpc, numbered(1))) == 1
