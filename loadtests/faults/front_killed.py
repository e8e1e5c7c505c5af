"""SIGKILL of one of two front processes."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import Replica, replica

FRONTS = 2


async def provoke(seconds: float) -> Finding:
    async with (
        replica("--front-processes", str(FRONTS)) as service,
        calling(service.target.http, service.target.grpc) as callers,
    ):
        await callers.steady(seconds)
        killed, other = fronts(service)
        killed.kill()
        start = time.perf_counter()
        await callers.until(lambda: len({each.pid for each in fronts(service)} - {killed.pid, other.pid}) == 1)
        replaced_s = time.perf_counter() - start
        await callers.steady(seconds)
        await callers.stop()
    return Finding(
        f"SIGKILL to one of {FRONTS} (`FOVEA_FRONT_PROCESSES={FRONTS}`)",
        f"another one listened after {replaced_s:.1f} s; the engine and its models went on; "
        f"{callers.again} requests asked again, all answered, the longest after {callers.longest_s:.2f} s",
        callers.tallies,
    )


def fronts(service: Replica) -> list[psutil.Process]:
    """Those that listen."""
    found = []
    for each in service.process.children():
        with suppress(psutil.NoSuchProcess):  # Which one that has just died is, too.
            listens = any(one.status == psutil.CONN_LISTEN for one in each.net_connections("tcp"))
            if listens and "service.fronts" in each.cmdline():
                found.append(each)
    return found


FAULT = Fault("front-killed", "Front process killed", provoke, loses=True)
