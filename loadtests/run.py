"""One run of locust with one kind of users."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.fetch import fetch
from loadtests.images import draw
from loadtests.metrics import mean_between, read_metrics, total
from loadtests.refusals import REFUSED
from loadtests.report.numbers import rate_text
from loadtests.shapes import stages
from loadtests.target import Target
from loadtests.users import UserKind

LOCUSTFILE = Path(__file__).parent / "locustfile.py"

STOP_TIMEOUT_S = 10
"""For the last requests to be answered, rather than cut off."""


@dataclass(frozen=True)
class Load:
    """What one kind of users does.

    Attributes:
        users: when there are most of them.
        shape: one of SHAPES; None: all users from the start to the end.
        rate_per_s: requests at random moments, of all users together; None: each sends without a pause.
    """

    users: int
    duration_s: int
    shape: str | None = None
    rate_per_s: float | None = None

    @property
    def rate_per_user(self) -> float | None:
        return None if self.rate_per_s is None else self.rate_per_s / self.users

    def __str__(self) -> str:
        how = "without a pause" if self.rate_per_s is None else f"with {rate_text(self.rate_per_s)} random requests/s"
        return f"{self.users} users {how}, {f'{self.shape}, ' if self.shape else ''}{self.duration_s} s"


@dataclass(frozen=True)
class Figures:
    """What locust says of a run, or of a stage of it. Latency is that of answered requests; None: there were none."""

    requests: int
    failures: int
    answered_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Run:
    """What locust and the service's own metrics say of one run; None: nothing was observed.

    Attributes:
        stages: of each stage of a shape, by its label.
        refused: of the requests that the service was too busy for, by stage.
        late_p99_ms: how late the load generator sent an open load.
        resident_bytes: the service's memory before and after.
        errors: how many requests failed for what reason.
    """

    name: str
    whole: Figures
    stages: dict[str, Figures] = field(default_factory=dict)
    refused: dict[str, Figures] = field(default_factory=dict)
    late_p99_ms: float | None = None
    mean_batch_size: float | None = None
    mean_queue_ms: float | None = None
    resident_bytes: tuple[float, float] | None = None
    errors: tuple[str, ...] = ()


def run_locust(kind: UserKind, target: Target, load: Load, folder: Path, name: str) -> Run:
    """Load the service with one kind of users, and leave locust's own reports in the folder under a name."""
    prefix = folder / name
    users = str(load.users)
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", kind.address(target), "--users", users, "--spawn-rate", users]
    command += ["--run-time", f"{load.duration_s}s", "--stop-timeout", str(STOP_TIMEOUT_S), "--loglevel", "WARNING"]
    command += ["--csv", str(prefix), "--html", f"{prefix}.html", "--json-file", str(prefix)]
    if kind.sends_tensors:
        command += ["--model", default_model(target)]
    if load.shape:
        command += ["--shape", load.shape]
    if load.rate_per_user:
        command += ["--rate-per-user", repr(load.rate_per_user)]
    # Failures are in its reports; any other exit code is trouble with locust itself.
    command += ["--exit-code-on-error", "0", kind.locust_class]
    before = read_metrics(target.metrics)
    if subprocess.run(command).returncode:
        raise SystemExit("error: locust failed; what it says is above")
    after = read_metrics(target.metrics)

    entries = json.loads(Path(f"{prefix}.json").read_text())
    requests = [entry for entry in entries if entry["method"] == kind.name]
    late = [entry for entry in entries if entry["method"] not in (kind.name, REFUSED)]
    refused = [entry for entry in entries if entry["method"] == REFUSED]
    expected = stages(load.shape, load.users, load.duration_s, load.rate_per_user) if load.shape else []
    queue_s = mean_between(before, after, "fovea_stage_duration_seconds", stage="queue")
    resident_bytes = tuple(total(samples, "process_resident_memory_bytes") for samples in (before, after))
    return Run(
        name=name,
        whole=_figures(requests, load.duration_s),
        stages={
            stage.label: _figures([entry for entry in requests if entry["name"] == stage.label], stage.duration_s)
            for stage in expected
        },
        refused={entry["name"]: _figures([entry], load.duration_s) for entry in refused},
        late_p99_ms=_figures(late, load.duration_s).p99_ms,
        mean_batch_size=mean_between(before, after, "fovea_batch_size"),
        mean_queue_ms=None if queue_s is None else 1e3 * queue_s,
        resident_bytes=(resident_bytes[0], resident_bytes[1]) if resident_bytes[0] else None,
        errors=_errors(Path(f"{prefix}_failures.csv")),
    )


def default_model(target: Target) -> str:
    """The model that images are for, so that tensors go to the same."""
    answer = json.loads(fetch(f"{target.http}/v1/classify", draw(0, (32, 32)), "image/jpeg"))
    return str(answer["model"])


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


def _figures(entries: Sequence[Mapping[str, Any]], duration_s: float) -> Figures:
    """Of several of locust's entries together.

    Args:
        duration_s: how long requests were sent; the last answers may take longer.
    """
    requests = sum(entry["num_requests"] for entry in entries)
    failures = sum(entry["num_failures"] for entry in entries)
    times_ms: Counter[float] = Counter()
    for entry in entries:
        times_ms.update({float(time_ms): count for time_ms, count in entry["response_times"].items()})
    if entries:
        first_s = min(entry["start_time"] for entry in entries)
        last_s = max(entry["last_request_timestamp"] for entry in entries)
        duration_s = max(duration_s, last_s - first_s)
    return Figures(
        requests=requests,
        failures=failures,
        answered_per_s=(requests - failures) / duration_s,
        p50_ms=percentile(times_ms, 0.50),
        p95_ms=percentile(times_ms, 0.95),
        p99_ms=percentile(times_ms, 0.99),
    )


def _errors(failures: Path) -> tuple[str, ...]:
    """The reasons in locust's own list, whatever the stage."""
    counts: Counter[str] = Counter()
    with failures.open(newline="") as file:
        for row in csv.DictReader(file):
            counts[row["Error"]] += int(row["Occurrences"])
    return tuple(f"{count} × {error}" for error, count in counts.most_common())
