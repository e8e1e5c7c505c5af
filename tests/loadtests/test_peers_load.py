from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadtests.h2load import Counts, Load, connections, grpc_frame, parse_body_bytes, parse_h2load, parse_log
from loadtests.peers import load
from loadtests.peers.protocol import OIP_GRPC, Request
from loadtests.peers.result import Measurement, Subject

OUTPUT = """\
finished in 2.00s, 1201.50 req/s, 149.01KB/s
requests: 2403 total, 2467 started, 2403 done, 2403 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2403 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 298.02KB (305173) total, 42.48KB (43501) headers (space savings 83.33%), 204.16KB (209061) data
"""


def test_bytes_of_the_bodies() -> None:
    assert parse_h2load(OUTPUT).succeeded == 2403
    assert parse_body_bytes(OUTPUT) == 209061
    with pytest.raises(ValueError, match="bytes"):
        parse_body_bytes("finished")


def test_times_of_the_requests_that_succeeded(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1795437252325272\t200\t13379\n1795437252325273\t503\t12\n1795437252325274\t204\t7\n")
    latencies_us, answered_us = parse_log(tmp_path / "log")
    assert latencies_us.tolist() == [13379, 7]
    assert answered_us.tolist() == [1795437252325281, 1795437252338651]


def test_a_log_of_no_request(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert [each.tolist() for each in parse_log(tmp_path / "log")] == [[], []]


def answered(*moments_s: float) -> Load:
    moments_us = np.array([1_000_000 * (7 + moment_s) for moment_s in moments_s], np.int64)
    return Load(Counts(len(moments_s), 0), 0, moments_us, moments_us, 0.0)


def test_the_rate_is_that_of_the_answers_whatever_the_batches_that_the_end_cuts_off() -> None:
    # Batches of 16 that take 2 s, the last of them not answered: 16 × 4 over 9 s would be too few.
    batches = [second for second in (2.0, 4.0, 6.0, 8.0) for _ in range(16)]
    assert answered(*batches).per_s(9.0) == pytest.approx(8.0, rel=0.05)
    assert answered(0.0, 0.1, 0.2, 0.3).per_s(0.4) == pytest.approx(10.0)


def test_answers_that_are_no_line_are_counted_over_the_whole_time() -> None:
    assert answered().per_s(4.0) == 0
    assert answered(1.0).per_s(4.0) == 0.25
    assert answered(*[1.0] * 16).per_s(4.0) == 4.0


def test_connections_have_one_request_each() -> None:
    assert connections(64, http1=True) == ("--h1", "--clients", "64")
    assert connections(64, http1=False) == ("--clients", "64", "--max-concurrent-streams", "1")


def test_a_frame_is_a_flag_the_length_and_the_message() -> None:
    assert grpc_frame(b"abc") == b"\0\0\0\0\3abc"


def measured_over_grpc(answers: int, monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """100 calls, of which so many were answered."""
    times_us = np.full(100, 2000)
    found = Load(Counts(100, 0), answers * len(grpc_frame(b"answer")), times_us, times_us, 0.0)
    monkeypatch.setattr(load, "time_h2load", lambda *_: found)
    monkeypatch.setattr(load, "warm_up", lambda *_: None)
    monkeypatch.setattr(load, "ask", lambda *_: b"answer")
    server: Any = SimpleNamespace(cpu_s=lambda: 0.0)
    subject = Subject("tiny", 1, "Fovea", "gRPC")
    return load.measure_load(subject, server, OIP_GRPC, 1, Request("/", {}, b"request"), 1, 2.0)


def test_where_calls_failed_no_latency_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_over_grpc(60, monkeypatch)
    assert (found.requests_per_s, found.failed, found.p50_ms, found.p99_ms) == (30.0, 40, None, None)
    found = measured_over_grpc(100, monkeypatch)
    assert (found.requests_per_s, found.failed, found.p50_ms, found.p99_ms) == (50.0, 0, 2.0, 2.0)
