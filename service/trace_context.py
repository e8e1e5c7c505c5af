"""W3C's trace context: the trace that a request is part of, as its caller says, and as it is said to whom it calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
MAX_STATE_LENGTH = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace, and the span in it that is at work.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits.
        sampled: whether the trace is recorded.
        state: what other tracing systems want to be handed on.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a callee is told."""
        parent = (TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}")
        return (parent, (TRACESTATE, self.state)) if self.state else (parent,)


trace_context: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
"""Of the request that is being answered; its caller's, where the service records no span of its own. In an instance's
thread that of a request in its batch."""


def parse(parent: str, state: str = "") -> TraceContext | None:
    """The trace context in a request's headers; None where there is none, or none that is valid."""
    found = FORM.fullmatch(parent)
    if found is None or (found[1] == "00" and found[5]):
        return None
    fit = len(state) <= MAX_STATE_LENGTH and state.isascii() and state.isprintable()
    return TraceContext(found[2], found[3], bool(int(found[4], 16) & SAMPLED), state if fit else "")


def of_batch(contexts: Iterable[TraceContext | None]) -> TraceContext | None:
    """The one of a batch's requests that whoever runs it is told: one that is sampled, if any is."""
    chosen: TraceContext | None = None
    for context in contexts:
        if context and context.sampled:
            return context
        chosen = chosen or context
    return chosen
