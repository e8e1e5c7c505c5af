"""Inference over HTTP whose JSON is known: answered from the connection, without the application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.errors import FoveaError
from service.inference import InferenceAnswer
from service.known_requests import MAX_WORDS_BYTES, KnownRequests, Words, form_of
from service.loading import ServedVersion
from service.rest.connection import HttpConnection
from service.rest.headers import REQUEST_ID, by_name, caller_of
from service.rest.infer_body import InferRequest, write_answer
from service.shared_memory import SharedMemory
from service.tensors import Array

HEADER_LENGTH = b"inference-header-content-length"
INFER_ROUTE = "/v2/models/{name}/infer"
UNUSUAL = frozenset({b"content-encoding", b"accept-encoding", b"origin"})
"""Headers of requests that are left to the application."""
NOT_IN_WORDS = (b"shared_memory", b"\\")
"""Tensors in shared memory, and escapes, in which these words can hide."""


class KnownInfer:
    """Args:
    on_error: makes an answer of an error.
    """

    def __init__(
        self, known: KnownRequests, on_error: Callable[[FoveaError], Response], *, request_timeout_s: float
    ) -> None:
        self._known = known
        self._on_error = on_error
        self._timeout_s = request_timeout_s

    def take(self, connection: HttpConnection, body: bytes) -> bool:
        """Answer a request, if it is known; says whether it is."""
        headers = by_name(connection.headers)
        length = headers.get(HEADER_LENGTH, b"")
        if not length.isdigit() or len(length) > 4 or not UNUSUAL.isdisjoint(headers):
            return False
        at = int(length)
        identity, context = caller_of(headers)
        flight = self._known.flight(
            (connection.url, body[:at]),
            body,
            at,
            identity,
            partial(self._answer, connection, identity),
            partial(self._fail, connection, identity),
            context,
        )
        if flight is None:
            return False
        connection.begin_direct(flight.cancel)
        flight.begin(self._timeout_s)
        return True

    def _answer(self, connection: HttpConnection, identity: str, words: Words, tensors: list[bytes]) -> None:
        head, json = words
        head = b"%b%b: %b\r\n" % (head, REQUEST_ID, identity.encode())
        connection.end_direct(head, json, *tensors, last=self._known.stopping)

    def _fail(self, connection: HttpConnection, identity: str, error: FoveaError) -> None:
        connection.fail_direct(self._on_error(error), identity, last=self._known.stopping)

    def remember(
        self,
        request: Request,
        body: bytes,
        header_length: str,
        asked: InferRequest,
        served: ServedVersion,
        found: InferenceAnswer,
        memory: SharedMemory,
    ) -> None:
        """Know a request again that was answered, where it is one that can be.

        Args:
            found: that answer.
        """
        at = int(header_length or 0)
        json = body[:at]
        key = (request.scope["raw_path"], json)
        if not 0 < at <= MAX_WORDS_BYTES or asked.id or request.scope["query_string"]:
            return
        if self._known.knows(key, served) or any(word in json for word in NOT_IN_WORDS):
            return
        if any(asked.asked(spec.name).classification or not asked.in_binary(spec.name) for spec, _ in found.outputs):
            return
        words_only, no_outputs = replace(asked, inputs={}), replace(found, outputs=[])
        specs = [spec for spec, _ in found.outputs]

        def word(outputs: Sequence[Array]) -> Words:
            answer = replace(no_outputs, outputs=list(zip(specs, outputs, strict=True)))
            content, json_bytes = write_answer(words_only, answer, memory)
            assert json_bytes is not None
            lines = (
                b"content-type: application/octet-stream",
                b"%b: %d" % (HEADER_LENGTH, json_bytes),
                b"content-length: %d" % len(content),
            )
            return b"%b%b\r\n" % (STATUS_LINE[200], b"\r\n".join(lines)), content[:json_bytes]

        form = form_of(
            str(request.path_params["name"]),
            str(request.path_params.get("version", "")),
            served,
            asked.inputs,
            len(body) - at,
            list(asked.outputs),
            priority=asked.priority,
            timeout_us=asked.timeout_us,
            word=word,
        )
        if form:
            self._known.remember(key, form)
