"""What one probe says of its rate."""

from __future__ import annotations

from typing import Literal

from loadtests.report.result import Run

Verdict = Literal["held", "missed", "generator"]

BUSY = 0.9
"""The share of its time that the load generator may compute before it is what is measured."""

RULE = (
    "A probe holds its rate when its p99 latency is within the bound and no request fails. One that misses says "
    f"nothing of the service when the load generator computed for {BUSY:.0%} of the time or more, or when it sent so "
    "late that the p99 of that alone is half of the p99 latency."
)


def verdict(run: Run, p99_ms: float) -> Verdict:
    """Whether a probe held its rate, the service missed it, or the load generator may have."""
    latency_ms = run.latency_ms.get(99.0)
    if latency_ms is not None and latency_ms <= p99_ms and not run.failures:
        return "held"
    if run.generator_busy >= BUSY or (latency_ms is not None and 2 * run.late_p99_ms >= latency_ms):
        return "generator"
    return "missed"
