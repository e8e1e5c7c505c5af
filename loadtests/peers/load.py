"""One load on one server."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from loadtests.h2load import connections, grpc_frame, time_h2load, warm_up
from loadtests.peers.process import Server
from loadtests.peers.protocol import Protocol, Request, ask
from loadtests.peers.result import Measurement, Subject

WARM_UP = 4
"""Requests on each connection, before what is measured."""


def measure_load(
    subject: Subject,
    server: Server,
    protocol: Protocol,
    port: int,
    request: Request,
    count: int,
    duration_s: float,
    watch: AbstractContextManager[object] | None = None,
) -> Measurement:
    """So many connections, with one request unanswered on each.

    Args:
        watch: entered for as long as is measured.
    """
    grpc = protocol.wire == "gRPC"
    framed = grpc_frame if grpc else bytes
    arguments = connections(count, http1=not grpc)
    url = f"http://127.0.0.1:{port}{request.path}"
    with TemporaryDirectory() as scratch:
        body = Path(scratch, "body")
        body.write_bytes(framed(request.body))
        warm_up(arguments, url, body, request.headers, WARM_UP * count)
        answer_bytes = len(framed(ask(protocol, port, request)))
        cpu_s = server.cpu_s()
        with watch or nullcontext():
            load = time_h2load(arguments, url, body, request.headers, duration_s)
        cpu_s = server.cpu_s() - cpu_s
    answered, latencies_us = load.counts.succeeded, load.latencies_us
    if grpc:  # A call that fails has HTTP status 200 all the same, and no message.
        answered = min(answered, load.body_bytes // answer_bytes)
        if answered < load.counts.succeeded:
            latencies_us = latencies_us[:0]  # Nothing tells the times of those that failed from the others'.
    return Measurement(
        subject=subject,
        connections=count,
        requests_per_s=answered / duration_s,
        failed=load.counts.failed + load.counts.succeeded - answered,
        p50_ms=_percentile_ms(latencies_us, 50),
        p99_ms=_percentile_ms(latencies_us, 99),
        server_cpu_us=1e6 * cpu_s / answered if answered else None,
        generator_busy=load.generator_cpu_s / duration_s,
    )


def _percentile_ms(latencies_us: np.ndarray[Any, Any], percentile: float) -> float | None:
    return float(np.percentile(latencies_us, percentile)) / 1000 if len(latencies_us) else None
