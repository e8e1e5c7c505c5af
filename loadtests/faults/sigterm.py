"""SIGTERM to a service that nobody stands in for."""

from __future__ import annotations

import asyncio
import time

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica


async def provoke(seconds: float) -> Finding:
    # Who is refused calls no more: the next request would meet a port that is closed, and tell nothing.
    async with (
        replica() as service,
        calling(service.target.http, service.target.grpc, patience_s=0) as callers,
    ):
        await callers.steady(seconds)
        process = service.process
        process.terminate()
        start = time.perf_counter()
        code = await asyncio.to_thread(process.wait, 60)
        ended_s = time.perf_counter() - start
        await callers.until_they_gave_up()
    return Finding(
        "SIGTERM, to one service without a balancer",
        f"what was in flight was answered; the next request of each caller was refused: {callers.refused} times 503 or "
        f"UNAVAILABLE, {callers.unreached} times no connection; it ended with code {code} after {ended_s:.1f} s",
        callers.tallies,
    )


FAULT = Fault("sigterm", "SIGTERM", provoke)
