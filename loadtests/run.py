"""One run of locust against one protocol of a service."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.metrics import mean_between, read_metrics

LOCUSTFILE = Path(__file__).parent / "locustfile.py"


STOP_TIMEOUT_S = 10
"""For the last requests to be answered, rather than cut off."""


@dataclass(frozen=True)
class Run:
    """What locust and the service's own metrics say of one run; None: nothing was observed."""

    protocol: str
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_batch_size: float | None
    mean_queue_ms: float | None
    errors: tuple[str, ...] = ()


def run_locust(user: str, protocol: str, host: str, metrics: str, *, users: int, duration_s: int, folder: Path) -> Run:
    """Load one protocol and leave locust's own reports in the folder, under the protocol's name.

    Args:
        user: the class in the locustfile.
        host: the address in the form that this class takes.
        metrics: the address of the service's metrics.
    """
    prefix = folder / protocol
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", host, "--users", str(users), "--spawn-rate", str(users), "--run-time", f"{duration_s}s"]
    command += ["--stop-timeout", str(STOP_TIMEOUT_S), "--loglevel", "WARNING"]
    command += ["--csv", str(prefix), "--html", f"{prefix}.html", "--json-file", str(prefix)]
    # Failures are in its reports; any other exit code is trouble with locust itself.
    command += ["--exit-code-on-error", "0", user]
    before = read_metrics(metrics)
    if subprocess.run(command).returncode:
        raise SystemExit("error: locust failed; what it says is above")
    after = read_metrics(metrics)

    # One entry, as every request has the same name; none, where there was no request.
    entry = next(iter(json.loads(Path(f"{prefix}.json").read_text())), None)
    times_ms = {float(time_ms): count for time_ms, count in entry["response_times"].items()} if entry else {}
    queue_s = mean_between(before, after, "fovea_stage_duration_seconds", stage="queue")
    with Path(f"{prefix}_failures.csv").open(newline="") as file:
        errors = tuple(f"{row['Occurrences']} × {row['Error']}" for row in csv.DictReader(file))
    return Run(
        protocol=protocol,
        requests=entry["num_requests"] if entry else 0,
        failures=entry["num_failures"] if entry else 0,
        requests_per_s=entry["num_requests"] / (entry["last_request_timestamp"] - entry["start_time"]) if entry else 0,
        p50_ms=percentile(times_ms, 0.50),
        p95_ms=percentile(times_ms, 0.95),
        p99_ms=percentile(times_ms, 0.99),
        mean_batch_size=mean_between(before, after, "fovea_batch_size"),
        mean_queue_ms=None if queue_s is None else 1e3 * queue_s,
        errors=errors,
    )


def percentile(times: Mapping[float, int], share: float) -> float | None:
    """The time that this share of the requests took at most.

    Args:
        times: how many requests took each time.
    """
    seen, wanted = 0, share * sum(times.values())
    for time, count in sorted(times.items()):
        seen += count
        if seen >= wanted:
            return time
    return None
