"""Prometheus metrics, and what is logged and traced of every request."""

from __future__ import annotations

import logging
import math
import random
import time
from contextvars import ContextVar
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.batching import BatchRecord
from service.classifier import Answer, Result, Stages
from service.errors import FoveaError, QueueFullError, UnavailableError
from service.inference import Timeline
from service.loading import ServedVersion
from service.request_durations import RequestDurations
from service.trace_context import TraceContext, trace_context
from service.tracing import RequestTrace, Tracing

if TYPE_CHECKING:
    from service.spans import RequestSpan, Spans

log = logging.getLogger("fovea")

request_id: ContextVar[str] = ContextVar("request_id", default="-")

DURATION_BUCKETS_S = (*(m * 10.0**e for e in range(-5, 1) for m in (1, 2.5, 5)), 10.0, 30.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES = {field.name: field.name.removesuffix("_s") for field in fields(Stages)}
IN_FLIGHT = "fovea_requests_in_flight"
MAX_REQUEST_ID_LENGTH = 128
FULL_QUEUE_LOG_INTERVAL_S = 1.0
"""Between lines about requests that a full queue refuses: under overload there are thousands of them a second."""


@dataclass(slots=True)
class RequestRecord:
    """One request as it is counted: the adapter fills in the model once it is known to exist.

    Attributes:
        start: on `time.perf_counter`'s clock.
        trace: None where nothing is traced.
        span: None where it is not recorded.
    """

    protocol: str
    start: float
    trace: RequestTrace | None
    span: RequestSpan | None = None
    model: str = ""
    code: str = ""


class Telemetry:
    """Every metric of one service, in a registry of its own.

    Args:
        spans: None: no request is recorded as a span.
    """

    def __init__(self, tracing: Tracing, spans: Spans | None = None) -> None:
        self._tracing = tracing
        self._spans = spans
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = Counter(
            "fovea_requests", "Requests by protocol, model and status code.", ["protocol", "model", "code"],
            registry=self.registry,
        )  # fmt: skip
        self._durations = RequestDurations(DURATION_BUCKETS_S)
        self.registry.register(self._durations)
        in_flight = Gauge(IN_FLIGHT, "Requests being answered.", ["protocol"], registry=self.registry)
        rejected = Counter(
            "fovea_requests_rejected", "Requests refused as too busy, not ready or stopping.", ["protocol"],
            registry=self.registry,
        )  # fmt: skip
        self._stages = Histogram(
            "fovea_stage_duration_seconds", "Time of one image in each stage.", ["model", "version", "stage"],
            buckets=DURATION_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._batch_size = Histogram(
            "fovea_batch_size", "Images in a batch.", ["model", "version"],
            buckets=BATCH_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._batches_failed = Counter(
            "fovea_batches_failed", "Batches whose inference raised.", ["model", "version"], registry=self.registry
        )
        self._queue_depth = Gauge(
            "fovea_queue_depth", "Images waiting for an instance.", ["model", "version"], registry=self.registry
        )
        self._queue_limit = Gauge(
            "fovea_queue_limit", "Images that may wait for an instance.", ["model", "version"], registry=self.registry
        )
        self._model_info = Gauge(
            "fovea_model_info", "1 for each version that is served.",
            ["model", "version", "execution_provider", "instances"], registry=self.registry,
        )  # fmt: skip
        # Finding a metric's child by its labels costs more than to observe with it.
        self._stage_children: dict[tuple[str, str], list[tuple[str, Histogram]]] = {}
        self._batch_children: dict[tuple[str, str], Histogram] = {}
        self._request_children: dict[tuple[str, str, str], Counter] = {}
        # Read when they are asked for, which costs a request less than to keep a gauge.
        self._answering = dict.fromkeys(("http", "grpc"), 0)
        for protocol in self._answering:
            in_flight.labels(protocol).set_function(partial(self._answering.__getitem__, protocol))
        # There from the start: a rate needs what it was before.
        self._rejected = {protocol: rejected.labels(protocol) for protocol in self._answering}
        # By protocol and model: when such a line was last logged, and how many were not since.
        self._full_queues: dict[tuple[str, str], tuple[float, int]] = {}

    def page(self, accept: str) -> tuple[bytes, str]:
        """Every metric, in the format that a client accepts, and that format's media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def families(self) -> list[Metric]:
        """What this process has counted of requests, to be added to what others have."""
        return [
            family
            for family in self.registry.collect()
            if family.name == IN_FLIGHT or (family.name.startswith("fovea_") and family.type != "gauge")
        ]

    @property
    def tracing(self) -> bool:
        """Whether requests are traced."""
        return self._tracing.on

    def request(self, protocol: str, operation: str = "") -> _Counted:
        """Context manager: counts one request, its status code taken from the error that ends it.

        Args:
            operation: its route or method, as for `Spans.begin`.
        """
        return _Counted(self, protocol, operation)

    def begin(self, protocol: str, operation: str, identity: str, parent: TraceContext | None) -> RequestRecord:
        """A request has arrived; `end` is to follow.

        Args:
            identity: the request's id.
            parent: its caller's trace context.
        """
        self._answering[protocol] += 1
        record = RequestRecord(protocol, time.perf_counter(), self._tracing.begin(protocol, identity))
        if self._spans:
            record.span = self._spans.begin(protocol, operation, parent, identity)
        return record

    def end(self, record: RequestRecord, error: BaseException | None = None) -> None:
        """A request was answered, failed by an error, or its client went away: then that is a cancellation."""
        http = record.protocol == "http"
        if error is None:
            if not record.code:  # Else its client has gone.
                record.code = "200" if http else "OK"
                self._durations.observe(record.protocol, record.model, time.perf_counter() - record.start)
            if record.trace:
                record.trace.answered()
        elif isinstance(error, FoveaError):
            record.code = str(error.http_status) if http else error.grpc_code.name
            self._count_rejected(record.protocol, error)
            self._log_failed(record, error)
        elif isinstance(error, Exception):
            record.code = "500" if http else "INTERNAL"
        else:
            record.code = record.code or ("499" if http else "CANCELLED")
        self._answering[record.protocol] -= 1
        self._request_child(record.protocol, record.model, record.code).inc()
        if record.span:
            record.span.end(record.model, record.code)
        if log.isEnabledFor(logging.DEBUG):
            duration_ms = 1e3 * (time.perf_counter() - record.start)
            log.debug("%s request: %s in %.1f ms", record.protocol, record.code, duration_ms)

    def _log_failed(self, record: RequestRecord, error: FoveaError) -> None:
        more = ""
        if isinstance(error, QueueFullError):
            key = record.protocol, record.model
            logged_s, unlogged = self._full_queues.get(key, (-math.inf, 0))
            if record.start < logged_s + FULL_QUEUE_LOG_INTERVAL_S:
                self._full_queues[key] = logged_s, unlogged + 1
                return
            if unlogged:
                more = f", and {unlogged} more before"
            self._full_queues[key] = record.start, 0
        log.info("%s request failed: %s %s%s", record.protocol, record.code, error, more)

    def refused(self, protocol: str, error: FoveaError) -> None:
        """A request was not let in: counted, and of no concern to anything else."""
        code = str(error.http_status) if protocol == "http" else error.grpc_code.name
        log.info("%s request refused: %s %s", protocol, code, error)
        self._count_rejected(protocol, error)
        self._request_child(protocol, "", code).inc()

    def _count_rejected(self, protocol: str, error: FoveaError) -> None:
        if isinstance(error, UnavailableError):
            self._rejected[protocol].inc()

    def _request_child(self, protocol: str, model: str, code: str) -> Counter:
        key = (protocol, model, code)
        child = self._request_children.get(key)
        if child is None:
            child = self._request_children[key] = self._requests.labels(*key)
        return child

    def inferred(
        self, record: RequestRecord, model: str, version: str, timeline: Timeline, request_id: str = ""
    ) -> None:
        """An inference of a request has its result.

        Args:
            request_id: what its client calls it; empty: as the request as a whole.
        """
        if record.trace:
            record.trace.add(model, version, timeline, request_id)
        if record.span:
            record.span.add(model, version, timeline)

    def observe(self, answer: Answer[Any], record: RequestRecord) -> None:
        """Record where the time of each image of an answer went."""
        key = (answer.model, answer.version)
        children = self._stage_children.get(key)
        if children is None:
            children = [(field, self._stages.labels(*key, stage)) for field, stage in STAGES.items()]
            self._stage_children[key] = children
        for result in answer.results:
            if isinstance(result, Result):
                for field, histogram in children:
                    histogram.observe(getattr(result.stages, field))
                self.inferred(record, answer.model, answer.version, result.timeline)

    def on_batch(self, model: str, version: str, record: BatchRecord) -> None:
        sizes = self._batch_children.get((model, version))
        if sizes is None:
            sizes = self._batch_children[model, version] = self._batch_size.labels(model, version)
        sizes.observe(record.batch_size)
        if record.failed:
            self._batches_failed.labels(model, version).inc()

    def on_served(self, served: ServedVersion) -> None:
        self._queue_depth.labels(served.name, served.version).set_function(lambda: served.batcher.queue_depth)
        self._queue_limit.labels(served.name, served.version).set(served.batcher.max_queue_size)
        self._batches_failed.labels(served.name, served.version)
        instances = str(len(served.instances))
        self._model_info.labels(served.name, served.version, served.execution_provider, instances).set(1)

    def on_withdrawn(self, served: ServedVersion) -> None:
        self._queue_depth.remove(served.name, served.version)
        self._queue_limit.remove(served.name, served.version)
        instances = str(len(served.instances))
        self._model_info.remove(served.name, served.version, served.execution_provider, instances)


class _Counted:
    __slots__ = ("_operation", "_protocol", "_record", "_telemetry")

    def __init__(self, telemetry: Telemetry, protocol: str, operation: str) -> None:
        self._telemetry = telemetry
        self._protocol = protocol
        self._operation = operation

    def __enter__(self) -> RequestRecord:
        record = self._telemetry.begin(self._protocol, self._operation, request_id.get(), trace_context.get())
        if record.span:
            # Each request has a task, and so a context, of its own.
            trace_context.set(record.span.context)
        self._record = record
        return record

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._telemetry.end(self._record, error)


def accept_request_id(given: str | None) -> str:
    """The caller's request id where it is fit to be logged and returned, else a new one."""
    if given and len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return f"{random.getrandbits(128):032x}"
