"""A collector that keeps the spans it is sent, by OTLP over HTTP."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service.launch import until


@dataclass
class Collector:
    """Attributes:
    spans: those that came, in that order.
    resources: the attributes of who sent them.
    """

    endpoint: str
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)

    async def roots(self, trace: str, count: int) -> list[Span]:
        """Wait for so many spans of requests of a trace (its traceparent); in the order in which they began."""

        def found() -> list[Span]:
            trace_id = bytes.fromhex(trace.split("-")[1])
            kind = Span.SPAN_KIND_SERVER
            return [span for span in list(self.spans) if span.kind == kind and span.trace_id == trace_id]

        await until(lambda: len(found()) >= count)
        assert len(found()) == count
        return sorted(found(), key=lambda span: span.start_time_unix_nano)

    def children(self, parent: Span) -> dict[str, Span]:
        """By their names; there must be one of each."""
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        by_name = {span.name: span for span in found}
        assert len(by_name) == len(found)
        assert all(span.trace_id == parent.trace_id for span in found)
        return by_name


def attributes(span: Span) -> dict[str, str | int]:
    return {
        entry.key: entry.value.string_value if entry.value.HasField("string_value") else entry.value.int_value
        for entry in span.attributes
    }


def from_json(content: bytes) -> ExportTraceServiceRequest:
    """OTLP's JSON, which is protobuf's but for its ids: they are hexadecimal. So does Triton send it."""

    def base64_ids(members: dict[str, Any]) -> dict[str, Any]:
        for name in members.keys() & {"traceId", "spanId", "parentSpanId"}:
            members[name] = b64encode(bytes.fromhex(members[name])).decode()
        return members

    return ParseDict(
        json.loads(content, object_hook=base64_ids), ExportTraceServiceRequest(), ignore_unknown_fields=True
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            assert self.path == "/v1/traces"
            content = self.rfile.read(int(self.headers["content-length"]))
            in_json = self.headers["content-type"].startswith("application/json")
            for sent in (
                from_json(content) if in_json else ExportTraceServiceRequest.FromString(content)
            ).resource_spans:
                pairs = {entry.key: entry.value.string_value for entry in sent.resource.attributes}
                collector.resources.append(pairs)
                for scope in sent.scope_spans:
                    collector.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *arguments: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
