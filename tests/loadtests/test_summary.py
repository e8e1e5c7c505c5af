from __future__ import annotations

from dataclasses import replace

from loadtests.run import Figures, Run
from loadtests.summary import summarize

NOTHING = Figures(requests=2, failures=2, answered_per_s=0.0, p50_ms=None, p95_ms=None, p99_ms=None)
HTTP = Run(
    name="HTTP",
    whole=Figures(requests=12345, failures=0, answered_per_s=1234.5, p50_ms=4.25, p95_ms=9.0, p99_ms=20.0),
    mean_batch_size=3.456,
    mean_queue_ms=0.789,
    resident_bytes=(1e8, 1.1e8),
)
GRPC = Run(name="gRPC", whole=NOTHING, errors=("2 × UNAVAILABLE",))
SPIKE = Run(
    name="HTTP",
    whole=HTTP.whole,
    stages={"before: 2 requests/s": HTTP.whole, "spike: 16 requests/s": NOTHING},
    late_p99_ms=1.5,
    mean_batch_size=3.456,
    mean_queue_ms=0.789,
    resident_bytes=(1e8, 1.1e8),
)


def test_summary_has_a_row_for_each_run() -> None:
    lines = summarize([HTTP, GRPC], {"Machine": "2 cores"}).splitlines()
    assert "- Machine: 2 cores" in lines
    assert "| HTTP | 12,345 | 1,234 | 4.2 | 9.0 | 20.0 | 0 | 3.46 | 0.79 |" in lines
    assert "| gRPC | 2 | 0 | – | – | – | 2 | – | – |" in lines
    assert lines[-1] == "- gRPC: 2 × UNAVAILABLE"


def test_no_list_of_failures_where_there_are_none() -> None:
    summary = summarize([HTTP], {})
    assert "Failures" not in summary
    assert "memory" not in summary


def test_a_shape_has_a_row_for_each_stage() -> None:
    lines = summarize([SPIKE], {}).splitlines()
    start = lines.index("| HTTP | 12,345 | 1,234 | 4.2 | 9.0 | 20.0 | 0 | 3.46 | 0.79 |")
    assert lines[start + 1 : start + 3] == [
        "| HTTP, before: 2 requests/s | 12,345 | 1,234 | 4.2 | 9.0 | 20.0 | 0 |  |  |",
        "| HTTP, spike: 16 requests/s | 2 | 0 | – | – | – | 2 |  |  |",
    ]
    assert "- HTTP: 99 % of the requests were sent at most 1.5 ms late, which is part of their latency" in lines
    assert "- HTTP: the service had 100.0 MB of memory before, and 110.0 MB after" in lines


def test_refusals_have_a_latency_of_their_own() -> None:
    refused = Figures(requests=1234, failures=0, answered_per_s=9.0, p50_ms=1.25, p95_ms=2.0, p99_ms=3.0)
    run = replace(SPIKE, refused={"spike: 16 requests/s": refused})
    note = "- HTTP: 1,234 requests were refused in “spike: 16 requests/s”: p50 1.2 ms, p99 3.0 ms"
    assert note in summarize([run], {}).splitlines()
    whole = replace(HTTP, refused={"requests": refused})
    assert "- HTTP: 1,234 requests were refused: p50 1.2 ms, p99 3.0 ms" in summarize([whole], {}).splitlines()
