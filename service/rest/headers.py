"""Headers of requests and answers, without the cost of going through all of them again and again."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from service.telemetry import accept_request_id
from service.trace_context import TRACEPARENT, TRACESTATE, TraceContext, parse

REQUEST_ID = b"x-request-id"
PARENT, STATE = TRACEPARENT.encode(), TRACESTATE.encode()

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values."""


def by_name(headers: Headers) -> dict[bytes, bytes]:
    """Of several of one name the first."""
    return dict(reversed(headers))


def caller_of(headers: Mapping[bytes, bytes]) -> tuple[str, TraceContext | None]:
    """A request's id, its caller's or a new one, and its caller's trace context."""
    identity = accept_request_id(headers.get(REQUEST_ID, b"").decode("latin-1"))
    parent = headers.get(PARENT)
    if not parent:
        return identity, None
    return identity, parse(parent.decode("latin-1"), headers.get(STATE, b"").decode("latin-1"))


def header(request: Request, name: bytes) -> str:
    """The first header of this name, in lower case; empty where there is none."""
    for found, value in request.scope["headers"]:
        if found == name:
            text: str = value.decode("latin-1")
            return text
    return ""


class WholeResponse(Response):
    """An answer whose body and headers are all there.

    Args:
        headers: all but the body's length.
    """

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
