"""extension_parameters, extension_schedule_policy: parameters of a request; priorities, timeouts and full queues."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from grpc import StatusCode

from tests.conformance.wire import (
    MALFORMED,
    Answer,
    Grpc,
    Http,
    Json,
    refused,
    rows,
    simple_inputs,
    simple_request,
    slow_request,
)

schedule_policy = pytest.mark.extension("schedule_policy")


def slow_body(**parameters: Json) -> Json:
    return {"inputs": [rows("INPUT0", [[1.0]])], "parameters": parameters}


def at_once(http: Http, model: str, bodies: Sequence[Json]) -> list[Answer]:
    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(lambda body: http.infer(model, body), bodies))


def counted(answers: Sequence[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


@pytest.mark.extension("parameters")
@pytest.mark.parametrize("value", ["x", 1, -1, True])
def test_own_parameter(http: Http, value: Json) -> None:
    """parameters: strings, numbers and booleans of the client's own pass."""
    assert http.infer("simple", {"inputs": simple_inputs(), "parameters": {"mine": value}}).status == 200


@pytest.mark.extension("parameters")
@pytest.mark.parametrize(
    ("member", "value"),
    [("string_param", "x"), ("int64_param", -1), ("uint64_param", 1), ("bool_param", True), ("double_param", 1.5)],
)
def test_own_parameter_over_grpc(grpc: Grpc, member: str, value: Json) -> None:
    """InferParameter: each of its members."""
    request = simple_request()
    setattr(request.parameters["mine"], member, value)
    assert grpc.infer(request).model_name == "simple"


@pytest.mark.extension("parameters")
def test_reserved_parameter_is_refused(http: Http, grpc: Grpc) -> None:
    """parameters: names that start with triton_ are the server's."""
    text = "parameter keys starting with 'triton_' are reserved"
    assert text in http.infer("simple", {"inputs": simple_inputs(), "parameters": {"triton_mine": 1}}).error(400)
    request = simple_request()
    request.parameters["triton_mine"].int64_param = 1
    with refused(StatusCode.INVALID_ARGUMENT, text=text):
        grpc.infer(request)


@schedule_policy
@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", ["1", -1, 1.5, []])
def test_policy_that_is_no_number_is_refused(http: Http, name: str, value: Json) -> None:
    """priority, timeout: unsigned integers."""
    assert http.infer("simple", {"inputs": simple_inputs(), "parameters": {name: value}}).error(*MALFORMED)


@schedule_policy
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_policy_that_is_no_number_is_refused_over_grpc(grpc: Grpc, name: str) -> None:
    """priority, timeout: int64_param, priority as uint64_param too."""
    request = simple_request()
    request.parameters[name].string_param = "1"
    with refused(StatusCode.INVALID_ARGUMENT, text=f"'{name}' parameter"):
        grpc.infer(request)


@schedule_policy
@pytest.mark.parametrize("member", ["uint64_param", "int64_param"])
def test_priority_over_grpc(grpc: Grpc, member: str) -> None:
    """priority: tritonclient sends it as uint64_param, older clients as int64_param."""
    request = simple_request()
    setattr(request.parameters["priority"], member, 1)
    assert grpc.infer(request).model_name == "simple"


@schedule_policy
def test_policy_of_a_model_that_has_none(http: Http) -> None:
    """priority, timeout: passed over where the model has no such policy."""
    request = {"inputs": simple_inputs(), "parameters": {"priority": 9, "timeout": 1000000}}
    assert http.infer("simple", request).status == 200


@schedule_policy
def test_priority_beyond_the_levels(http: Http) -> None:
    """priority: what is no level of the model's is the default one."""
    assert http.infer("prioritized", slow_body(priority=9)).status == 200


@schedule_policy
def test_priority_overtakes(grpc: Grpc) -> None:
    """priority: 1 is the highest; it goes before what waits with a lower one."""
    order: list[int] = []
    first_is_done, all_are_done = threading.Event(), threading.Event()

    def send(priority: int) -> Any:
        request = slow_request("prioritized")
        request.parameters["priority"].uint64_param = priority
        call = grpc.stub.ModelInfer.future(request)

        def done(_: Any) -> None:
            order.append(priority)
            first_is_done.set()
            if len(order) == 7:
                all_are_done.set()

        call.add_done_callback(done)
        return call

    calls = [send(2) for _ in range(6)]
    assert first_is_done.wait(60)
    calls.append(send(1))
    assert all_are_done.wait(60)
    assert all(call.code() is StatusCode.OK for call in calls)
    assert order[-1] == 2, order


@schedule_policy
def test_full_queue(http: Http) -> None:
    """max_queue_size: what finds the queue full is refused at once; what is in it is answered."""
    answers = at_once(http, "slow", [slow_body()] * 8)
    statuses = counted(answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= 2
    assert all("Exceeds maximum queue size" in answer.error(503) for answer in answers if answer.status != 200)


@schedule_policy
def test_full_queue_over_grpc(grpc: Grpc) -> None:
    """max_queue_size: UNAVAILABLE."""
    calls = [grpc.stub.ModelInfer.future(slow_request("slow")) for _ in range(8)]
    codes = Counter(call.code() for call in calls)
    assert codes.keys() == {StatusCode.OK, StatusCode.UNAVAILABLE}
    assert all("Exceeds maximum queue size" in call.details() for call in calls if call.code() is not StatusCode.OK)


@schedule_policy
def test_queue_works_after_it_was_full(http: Http) -> None:
    """max_queue_size: refusals are over when the queue is empty."""
    at_once(http, "slow", [slow_body()] * 8)
    assert http.infer("slow", slow_body()).status == 200


@schedule_policy
def test_time_in_the_queue_runs_out(http: Http) -> None:
    """default_timeout_microseconds with timeout_action REJECT: refused when its turn comes too late."""
    answers = at_once(http, "impatient", [slow_body()] * 32)
    assert counted(answers).keys() == {200, 503}
    assert {answer.error(503) for answer in answers if answer.status != 200} == {"Request timeout expired"}


@schedule_policy
def test_time_in_the_queue_runs_out_over_grpc(grpc: Grpc) -> None:
    """default_timeout_microseconds: UNAVAILABLE."""
    calls = [grpc.stub.ModelInfer.future(slow_request("impatient")) for _ in range(32)]
    assert {call.code() for call in calls} == {StatusCode.OK, StatusCode.UNAVAILABLE}
    assert {call.details() for call in calls if call.code() is not StatusCode.OK} == {"Request timeout expired"}


@schedule_policy
def test_timeout_of_a_request(http: Http) -> None:
    """timeout, in microseconds, where allow_timeout_override is true: shorter than the model's."""
    answers = at_once(http, "overridable", [slow_body(), slow_body()] + [slow_body(timeout=1)] * 2)
    assert [answer.status for answer in answers[:2]] == [200, 200]
    assert counted(answers[2:])[503] >= 1
    assert {answer.error(503) for answer in answers[2:] if answer.status != 200} == {"Request timeout expired"}


@schedule_policy
def test_timeout_of_a_request_is_not_allowed(http: Http) -> None:
    """timeout, where allow_timeout_override is false: passed over."""
    answers = at_once(http, "slow", [slow_body(timeout=1)] * 2)
    assert counted(answers) == {200: 2}


@schedule_policy
def test_timeout_of_a_request_cannot_be_longer(http: Http) -> None:
    """timeout: it does not outdo the model's own."""
    answers = at_once(http, "impatient", [slow_body(timeout=60000000)] * 32)
    assert counted(answers).keys() == {200, 503}
