from __future__ import annotations

import pytest

from service.trace_context import MAX_STATE_LENGTH, TraceContext, of_batch, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-will-come", True),
    ],
)
def test_a_trace_context_is_read(parent: str, sampled: bool) -> None:
    assert parse(parent) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        "é" * 55,
    ],
)
def test_what_is_none_is_as_if_it_were_not_there(parent: str) -> None:
    assert parse(parent) is None


def test_it_is_handed_on() -> None:
    found = parse(f"00-{TRACE}-{SPAN}-01", "a=1,b=2")
    assert found
    assert found.headers() == (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1,b=2"))
    assert TraceContext(TRACE, SPAN, False).headers() == (("traceparent", f"00-{TRACE}-{SPAN}-00"),)


@pytest.mark.parametrize("state", ["a=\n", "a=é", "a=" + "1" * MAX_STATE_LENGTH])
def test_a_state_that_is_none_is_left_out(state: str) -> None:
    assert parse(f"00-{TRACE}-{SPAN}-01", state) == TraceContext(TRACE, SPAN, True)


def test_of_a_batch_the_one_that_is_sampled_is_told() -> None:
    sampled, other = TraceContext(TRACE, SPAN, True), TraceContext(TRACE, SPAN, False)
    assert of_batch([None, other, sampled]) is sampled
    assert of_batch([None, other]) is other
    assert of_batch([None]) is of_batch([]) is None
