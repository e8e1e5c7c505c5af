"""What a run of locust has done so far, in a line now and then."""

from __future__ import annotations

import time

import gevent  # type: ignore[import-untyped]
from locust.env import Environment

from loadtests.load_user import LATE
from loadtests.refusals import REFUSED

LINES = 5
MOST_S = 10.0
"""Between two lines, in seconds, however long the run."""


def tell(environment: Environment, run_time_s: float) -> None:
    """Print a line now and then until a run of so many seconds is over."""
    start_s = time.perf_counter()
    pause_s = min(run_time_s / LINES, MOST_S)
    for number in range(1, round(run_time_s / pause_s)):
        gevent.sleep(max(0.0, start_s + number * pause_s - time.perf_counter()))
        print(f"  {number * pause_s:.0f} s: {so_far(environment)}", flush=True)


def so_far(environment: Environment) -> str:
    """`1,234 requests, 2 failed`: of those that users have sent and have heard of."""
    entries = [entry for entry in environment.stats.entries.values() if entry.method not in (LATE[0], REFUSED)]
    requests, failed = (sum(getattr(entry, name) for entry in entries) for name in ("num_requests", "num_failures"))
    return f"{requests:,} requests, {failed:,} failed"
