"""Headers of requests and answers, without the cost of going through all of them again and again."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response


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
