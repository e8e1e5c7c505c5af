"""Requests as OpenTelemetry's spans, sent by OTLP over HTTP. Imported only where they are asked for: it takes its time.

A request is one span; where the time of its inferences went is known when they are over, and becomes its children then.
"""

from __future__ import annotations

import random
import time
from threading import Timer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from service.inference import Timeline
from service.trace_context import TraceContext

EXPORT_TIMEOUT_S = 5.0
CLOSE_S = 2.0
"""How long the last spans may take, and one export more."""
MAX_INFERENCES = 16
"""Of one request, whose stages are shown; it may have hundreds of images."""
SERVER_FAULTS = ("500", "503", "504", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Codes that are errors of the service, as OpenTelemetry's conventions have it."""


class Spans:
    """Decides which requests are recorded, and sends them in the background; what cannot be sent in time is lost.

    Args:
        endpoint: a collector's, for OTLP over HTTP: "http://127.0.0.1:4318".
        sampling_ratio: the share that is recorded of requests without a trace context; with one, its caller decided.
        version: the service's.
    """

    def __init__(self, endpoint: str, *, sampling_ratio: float, version: str) -> None:
        self._sampling_ratio = sampling_ratio
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource_of(version), shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("fovea", version)

    def begin(self, protocol: str, operation: str, parent: TraceContext | None, request_id: str) -> RequestSpan | None:
        """A request has arrived; None where it is not recorded.

        Args:
            operation: its route, as "/v1/classify", or its method, as "fovea.v1.Classifier/Classify".
        """
        if parent.sampled if parent else random.random() < self._sampling_ratio:
            return RequestSpan(self._tracer, protocol, operation, parent, request_id)
        return None

    def close(self) -> None:
        """Send what waits; takes its time, but not for a collector that is not there."""
        giving_up = Timer(CLOSE_S, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class RequestSpan:
    """One request that is recorded.

    Attributes:
        context: what whoever is called for it is told.
    """

    def __init__(
        self, tracer: Tracer, protocol: str, operation: str, parent: TraceContext | None, request_id: str
    ) -> None:
        self._tracer = tracer
        self._protocol = protocol
        # Stage times are on another clock.
        self._monotonic_to_epoch_ns = time.time_ns() - time.monotonic_ns()
        self._inferences: list[tuple[str, str, Timeline]] = []
        attributes = {"fovea.request_id": request_id}
        if protocol == "http":
            name = f"POST {operation}"
            attributes |= {"http.request.method": "POST", "http.route": operation}
        else:
            name = operation
            service, _, method = operation.partition("/")
            attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self._span: Span = tracer.start_span(
            name, set_span_in_context(_remote(parent)) if parent else None, SpanKind.SERVER, attributes
        )
        own = self._span.get_span_context()
        state = parent.state if parent else ""
        self.context = TraceContext(format_trace_id(own.trace_id), format_span_id(own.span_id), True, state)

    def add(self, model: str, version: str, timeline: Timeline) -> None:
        """An inference has its result."""
        self._inferences.append((model, version, timeline))

    def end(self, model: str, code: str) -> None:
        """The request is over.

        Args:
            code: its HTTP status or gRPC code.
        """
        if model:
            self._span.set_attribute("fovea.model", model)
        self._span.set_attribute("fovea.inferences", len(self._inferences))
        if self._protocol == "http":
            self._span.set_attribute("http.response.status_code", int(code))
        else:
            self._span.set_attribute("rpc.grpc.status_code", code)
        if code not in ("200", "OK"):
            self._span.set_attribute("error.type", code)
            if code in SERVER_FAULTS:
                self._span.set_status(StatusCode.ERROR)
        for inference in self._inferences[:MAX_INFERENCES]:
            self._add_stages(*inference)
        self._span.end()

    def _add_stages(self, model: str, version: str, timeline: Timeline) -> None:
        batch = timeline.batch
        taken = timeline.queued + timeline.queue_s
        done = taken + batch.assembly_s + batch.inference_s + batch.output_s
        parent = set_span_in_context(self._span)
        attributes = {"fovea.model": model, "fovea.version": version}
        of_batch = attributes | {"fovea.batch_size": batch.batch_size}
        for name, begun, ended, said in (
            ("decode", timeline.start, timeline.queued, attributes),
            ("queue", timeline.queued, taken, attributes),
            ("inference", taken, done, of_batch),
        ):
            if ended > begun:
                span = self._tracer.start_span(name, parent, SpanKind.INTERNAL, said, start_time=self._ns(begun))
                span.end(self._ns(ended))

    def _ns(self, moment: float) -> int:
        """Since the epoch, of a moment on `time.monotonic`'s clock."""
        return round(moment * 1e9) + self._monotonic_to_epoch_ns


def resource_of(version: str) -> Resource:
    """Who sends spans: the service, unless OpenTelemetry's own variables say otherwise."""
    own = Resource({SERVICE_NAME: "fovea", SERVICE_VERSION: version})
    # `create` alone would let the attributes that it is given win over the variables.
    return Resource.create().merge(own).merge(OTELResourceDetector().detect())


def _remote(parent: TraceContext) -> NonRecordingSpan:
    context = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([parent.state]),
    )
    return NonRecordingSpan(context)
