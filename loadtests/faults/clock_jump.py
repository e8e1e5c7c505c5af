"""The wall clock jumps, as by a bad NTP server; libfaketime tells the service another time."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import urlopen

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica

LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
JUMPS_S = (3600, -86400)


def library() -> Path | None:
    return next((file for folder in LIBRARIES for file in Path(folder).rglob("libfaketimeMT.so.1")), None)


def missing() -> str:
    return "" if library() else "libfaketime is not installed; Debian and Ubuntu have it in the package faketime"


async def provoke(seconds: float) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        offset = Path(folder) / "offset"
        tell(offset, 0)
        variables = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            # A clock that is set does not move this one.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        async with (
            replica(prefix=["env", *(f"{name}={value}" for name, value in variables.items())]) as service,
            calling(service.target.http, service.target.grpc) as callers,
        ):
            for jump_s in (0, *JUMPS_S, 0):
                tell(offset, jump_s)
                await callers.until(lambda jump_s=jump_s: is_off(service.target.http, jump_s))  # type: ignore[misc]
                await callers.steady(seconds)
            assert await asyncio.to_thread(service.ready)
            await callers.stop()
    return Finding(
        "the service's wall clock set an hour on, then a day back, then right again",
        f"`date` headers followed; deadlines, queues and timings go by the monotonic clock; the longest request took "
        f"{callers.longest_s:.2f} s; {callers.refused} refused",
        callers.tallies,
    )


def tell(file: Path, offset_s: int) -> None:
    beside = file.with_name("new")
    beside.write_text(f"{offset_s:+d}\n")
    beside.rename(file)


def is_off(address: str, offset_s: int) -> bool:
    """Whether the service's date is so far from ours, within two minutes."""
    with urlopen(f"{address}/v2/health/live", timeout=10) as response:
        date = parsedate_to_datetime(response.headers["date"])
    expected = datetime.now(date.tzinfo) + timedelta(seconds=offset_s)
    return abs(date - expected) < timedelta(minutes=2)


FAULT = Fault("clock-jump", "Clock jumps", provoke, missing)
