"""h2load, a load generator that costs little processor time itself: what it sends, and what it counted."""

from __future__ import annotations

import re
import resource
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

IN_FLIGHT = 64
HTTP1 = ("--h1", "--clients", "64")
HTTP2 = ("--clients", "8", "--max-concurrent-streams", "8")

END_S = 20.0
"""How long after its time h2load may take to end: a client of its that connects only then never ends."""
WARM_UP_S = 60.0
"""The longest that it may take for a number of requests."""

COUNTS = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
BODY_BYTES = re.compile(r"^traffic:.*\((\d+)\) data$", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """Requests answered with an HTTP status 2xx, and all others that came to an end."""

    succeeded: int
    failed: int


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Attributes:
        body_bytes: of all answers.
        latencies_us: of each request that succeeded, whole microseconds.
        answered_us: when each of them was answered, whole microseconds, the earliest first.
        generator_cpu_s: processor time that h2load took itself.
    """

    counts: Counts
    body_bytes: int
    latencies_us: np.ndarray[Any, Any]
    answered_us: np.ndarray[Any, Any]
    generator_cpu_s: float

    def per_s(self, duration_s: float) -> float:
        """Answers per second while there were any: the slope of the line through them.

        Where batches take seconds, those that the end cuts off are no small part of a count over the whole time. Of
        answers that are too few for a line, it is their number over the whole time all the same.
        """
        seconds = (self.answered_us - self.answered_us[:1]) / 1e6
        if not len(seconds) or seconds[-1] < duration_s / 2:
            return len(seconds) / duration_s
        return float(np.polyfit(seconds, np.arange(len(seconds)), 1)[0])


def require_h2load() -> None:
    if shutil.which("h2load") is None:
        raise SystemExit("error: h2load is not installed; Debian and Ubuntu have it in the package nghttp2-client")


def connections(count: int, *, http1: bool) -> tuple[str, ...]:
    """Arguments for so many connections with one request unanswered on each."""
    clients = ("--clients", str(count))
    return ("--h1", *clients) if http1 else (*clients, "--max-concurrent-streams", "1")


def grpc_frame(message: bytes) -> bytes:
    """A gRPC message as it travels: not compressed, its length, itself."""
    return struct.pack(">?I", False, len(message)) + message


def warm_up(arguments: tuple[str, ...], url: str, body: Path, headers: dict[str, str], requests: int) -> None:
    """Send the body so many times: for a moment, a number is safer than a time (see END_S)."""
    _output((*arguments, "--requests", str(requests)), url, body, headers, WARM_UP_S)


def time_h2load(arguments: tuple[str, ...], url: str, body: Path, headers: dict[str, str], duration_s: float) -> Load:
    """Send the body again and again, with as many requests unanswered at any time as the arguments say.

    Args:
        arguments: HTTP1, HTTP2, or those of `connections`.
    """
    with TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        before = _children_cpu_s()
        logging = ("--log-file", str(log))
        output = _output((*arguments, *logging, *_for(duration_s)), url, body, headers, duration_s + END_S)
        cpu_s = _children_cpu_s() - before
        return Load(parse_h2load(output), parse_body_bytes(output), *parse_log(log), cpu_s)


def parse_h2load(output: str) -> Counts:
    found = COUNTS.search(output)
    if found is None:
        raise ValueError(f"h2load did not say how many requests succeeded: {output}")
    succeeded, failed, errored, timeout = map(int, found.groups())
    return Counts(succeeded, failed + errored + timeout)


def parse_body_bytes(output: str) -> int:
    found = BODY_BYTES.search(output)
    if found is None:
        raise ValueError(f"h2load did not say how many bytes it was sent: {output}")
    return int(found[1])


def parse_log(log: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Microseconds of each request with a status 2xx, and when each was answered, the earliest first.

    Args:
        log: lines of start, status and microseconds.
    """
    if not log.stat().st_size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    starts_us, statuses, latencies_us = np.loadtxt(log, np.int64, delimiter="\t", ndmin=2).T
    succeeded = statuses // 100 == 2
    return latencies_us[succeeded], np.sort((starts_us + latencies_us)[succeeded])


def _for(duration_s: float) -> tuple[str, ...]:
    return ("--duration", f"{round(1000 * duration_s)}ms")


def _output(arguments: tuple[str, ...], url: str, body: Path, headers: dict[str, str], timeout_s: float) -> str:
    command = ["h2load", *arguments, "--data", str(body)]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    return subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=timeout_s).stdout


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
