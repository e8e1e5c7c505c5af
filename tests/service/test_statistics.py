from __future__ import annotations

import asyncio

import pytest

from service.batching import BatchRecord
from service.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    QueueFullError,
    UnavailableError,
)
from service.statistics import FAILURE_REASONS, VersionStatistics


@pytest.mark.parametrize(
    ("error", "reason", "took_time"),
    [
        (QueueFullError("x"), "REJECTED", False),
        (UnavailableError("x"), "REJECTED", True),
        (DeadlineExceededError("x"), "REJECTED", True),
        (asyncio.CancelledError(), "CANCELED", False),
        (InferenceError("x"), "BACKEND", True),
        (InvalidInputError("x"), "OTHER", True),
    ],
)
def test_a_failure_is_counted_by_its_reason(error: BaseException, reason: str, took_time: bool) -> None:
    statistics = VersionStatistics()
    statistics.on_failure(0.5, error)
    assert reason in FAILURE_REASONS
    assert statistics.failures == {reason: 1}
    assert (statistics.fail.count, statistics.fail.ns) == ((1, 500_000_000) if took_time else (0, 0))


def test_a_batch_is_counted_once_and_its_time_for_each_of_its_requests() -> None:
    statistics, record = VersionStatistics(), BatchRecord(4, 0.001, 0.002, 0.003)
    statistics.on_batch(record)
    for _ in range(2):
        statistics.on_success(0.01, 0.004, record)
    assert (statistics.execution_count, statistics.inference_count) == (1, 4)
    assert (statistics.success.count, statistics.success.ns) == (2, 20_000_000)
    assert statistics.queue.ns == 8_000_000
    assert statistics.requests.compute_infer.ns == 4_000_000
    assert statistics.by_batch_size[4].compute_infer.ns == 2_000_000
