from __future__ import annotations

from loadtests.run import Run, percentile
from loadtests.summary import summarize

HTTP = Run(
    protocol="HTTP", requests=12345, failures=0, requests_per_s=1234.5, p50_ms=4.25, p95_ms=9.0, p99_ms=20.0,
    mean_batch_size=3.456, mean_queue_ms=0.789,
)  # fmt: skip
GRPC = Run(
    protocol="gRPC", requests=2, failures=2, requests_per_s=0.5, p50_ms=1.0, p95_ms=1.0, p99_ms=1.0,
    mean_batch_size=None, mean_queue_ms=None, errors=("2 × UNAVAILABLE",),
)  # fmt: skip


def test_summary_has_a_row_for_each_protocol() -> None:
    lines = summarize([HTTP, GRPC], {"Machine": "2 cores"}).splitlines()
    assert "- Machine: 2 cores" in lines
    assert "| HTTP | 12,345 | 1,234 | 4.2 | 9.0 | 20.0 | 0 | 3.46 | 0.79 |" in lines
    assert "| gRPC | 2 | 0 | 1.0 | 1.0 | 1.0 | 2 | – | – |" in lines
    assert lines[-1] == "- gRPC: 2 × UNAVAILABLE"


def test_no_list_of_failures_where_there_are_none() -> None:
    assert "Failures" not in summarize([HTTP], {})


def test_percentile_is_the_time_that_the_share_took_at_most() -> None:
    times = {30.0: 1, 10.0: 95, 20.0: 4}
    assert [percentile(times, share) for share in (0.5, 0.95, 0.99, 1.0)] == [10.0, 10.0, 20.0, 30.0]
    assert percentile({}, 0.5) is None
