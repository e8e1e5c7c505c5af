"""The Triton server that is the engine is killed, and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica
from loadtests.target import BUNDLED_REPOSITORY
from tests.triton.install import missing
from tests.triton.launch import free_ports, running


async def provoke(seconds: float) -> Finding:
    (port,) = free_ports(1)
    first, second = (running(BUNDLED_REPOSITORY, grpc_port=port) for _ in range(2))
    triton = await asyncio.to_thread(first.__enter__)
    async with (
        replica("--backend", "triton", "--triton-address", triton.grpc) as service,
        calling(service.target.http, service.target.grpc) as callers,
    ):
        await callers.steady(seconds)
        os.killpg(triton.pid, signal.SIGKILL)
        start = time.perf_counter()
        await callers.until(lambda: not service.ready())
        noticed_s = time.perf_counter() - start
        await asyncio.to_thread(first.__exit__, None, None, None)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(second.__enter__)
        start = time.perf_counter()
        try:
            await callers.until(service.ready)
            ready_s = time.perf_counter() - start
            await callers.steady(seconds)
            await callers.stop()
        finally:
            await asyncio.to_thread(second.__exit__, None, None, None)
    return Finding(
        "`FOVEA_BACKEND=triton`: Triton and its models' processes killed, started again later",
        f"not ready after {noticed_s:.1f} s; every request got its 503 or UNAVAILABLE, {callers.refused} in all; ready "
        f"{ready_s:.1f} s after Triton was, without a restart; {callers.again} requests asked again, all answered",
        callers.tallies,
    )


FAULT = Fault("triton-gone", "Triton gone", provoke, missing)
