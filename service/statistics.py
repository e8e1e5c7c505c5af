"""What Triton's statistics extension counts, for one model version. Durations in ns."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections import Counter
from dataclasses import dataclass, field

from service.batching import BatchRecord
from service.errors import DeadlineExceededError, InferenceError, QueueFullError, UnavailableError

FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


@dataclass
class Duration:
    """How often something happened, and the time it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass
class BatchStatistics:
    """The executions of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def add(self, record: BatchRecord) -> None:
        self.compute_input.add(record.assembly_s)
        self.compute_infer.add(record.inference_s)
        self.compute_output.add(record.output_s)


@dataclass
class VersionStatistics:
    """Attributes:
    last_inference_ms: when the last request arrived, in ms since the epoch; 0: never.
    inference_count: rows that were inferred.
    execution_count: batches that were run.
    requests: the compute times of the batches that the requests were in, counted once for each request.
    by_batch_size: the executions of each batch size.
    failures: how many requests failed, by Triton's reason; with those that `fail` leaves out, as they took no time.
    """

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    requests: BatchStatistics = field(default_factory=BatchStatistics)
    by_batch_size: dict[int, BatchStatistics] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def on_batch(self, record: BatchRecord) -> None:
        if not record.failed:
            self.execution_count += 1
            self.inference_count += record.batch_size
            self.by_batch_size.setdefault(record.batch_size, BatchStatistics()).add(record)

    def on_success(self, total_s: float, queue_s: float, record: BatchRecord) -> None:
        self.success.add(total_s)
        self.queue.add(queue_s)
        self.requests.add(record)
        self.last_inference_ms = round((time.time() - total_s) * 1e3)

    def on_failure(self, total_s: float, error: BaseException) -> None:
        self.failures[_reason(error)] += 1
        if isinstance(error, QueueFullError | CancelledError):
            return
        self.fail.add(total_s)
        self.last_inference_ms = round((time.time() - total_s) * 1e3)


def _reason(error: BaseException) -> str:
    """Triton's word for why a request failed; one whose time passed is to it as one that was refused."""
    match error:
        case UnavailableError() | DeadlineExceededError():
            return "REJECTED"
        case CancelledError():
            return "CANCELED"
        case InferenceError():
            return "BACKEND"
        case _:
            return "OTHER"
