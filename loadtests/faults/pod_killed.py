"""SIGKILL of one of two replicas behind a balancer."""

from __future__ import annotations

import asyncio
import time

import psutil

from loadtests.faults.balancer import balancing, missing
from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica, same_ports


async def provoke(seconds: float) -> Finding:
    async with replica() as one, replica() as other:
        with balancing({"one": one.ports, "other": other.ports}) as balancer:
            async with calling(balancer.http, balancer.grpc) as callers:
                await callers.until(lambda: balancer.up("one") and balancer.up("other"))
                await callers.steady(seconds)
                one.process.kill()
                start = time.perf_counter()
                await callers.until(lambda: not balancer.up("one"))
                out_s = time.perf_counter() - start
                await asyncio.to_thread(psutil.wait_procs, [one.process])
                await callers.steady(seconds)
                async with replica(*same_ports(one)):
                    await callers.until(lambda: balancer.up("one"))
                    await callers.steady(seconds)
                    await callers.stop()
    return Finding(
        "SIGKILL to one of two replicas behind HAProxy, another one in its place later",
        f"the balancer left it out after {out_s:.1f} s; {callers.refused} refused meanwhile; {callers.again} requests "
        f"asked again, all answered, the longest after {callers.longest_s:.2f} s",
        callers.tallies,
    )


FAULT = Fault("pod-killed", "Pod killed", provoke, missing, loses=True)
