"""Images that would find the queue full: refused from the connection, without the application.

Under overload most requests are refused, and what each of them costs is taken from those that are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context

from starlette.datastructures import QueryParams
from starlette.responses import Response

from service.classifier import Classifier
from service.errors import FoveaError, QueueFullError
from service.lifecycle import Lifecycle
from service.rest.body import is_one_image, media_type_of
from service.rest.connection import HttpConnection
from service.rest.headers import by_name, caller_of
from service.telemetry import Telemetry, request_id
from service.trace_context import TraceContext, trace_context

GIVES_FEATURES = {b"/v1/classify": False, b"/v1/embed": True}


class FullQueue:
    """Args:
    on_error: makes an answer of an error.
    """

    def __init__(
        self,
        classifier: Classifier,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        on_error: Callable[[FoveaError], Response],
        *,
        max_request_bytes: int,
    ) -> None:
        self._classifier = classifier
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._on_error = on_error
        self._max_request_bytes = max_request_bytes

    def take(self, connection: HttpConnection, body: bytes) -> bool:
        """Refuse a request, if it is one that a full queue would refuse; says whether it is."""
        path, _, query = connection.url.partition(b"?")
        features = GIVES_FEATURES.get(path)
        if features is None or self._lifecycle.stopping.is_set() or self._telemetry.tracing:
            return False
        headers = by_name(connection.headers)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        # In a body of another type the model may be named.
        if not is_one_image(media_type_of(content_type)) or b"origin" in headers:
            return False
        asked = QueryParams(query) if query else {}
        if "top_k" in asked or len(body) > self._max_request_bytes:
            return False
        refused = self._classifier.refuse_if_full(asked.get("model", ""), asked.get("version", ""), features=features)
        if not refused:
            return False
        identity, context = caller_of(headers)
        copy_context().run(self._count, path.decode(), *refused, identity, context)
        connection.begin_direct(lambda: None)
        connection.fail_direct(self._on_error(refused[1]), identity)
        return True

    def _count(
        self, route: str, model: str, error: QueueFullError, identity: str, context: TraceContext | None
    ) -> None:
        request_id.set(identity)
        trace_context.set(context)
        record = self._telemetry.begin("http", route, identity, context)
        record.model = model
        if record.span:
            trace_context.set(record.span.context)
        self._telemetry.end(record, error)
