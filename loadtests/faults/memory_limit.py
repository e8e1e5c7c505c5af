"""A replica that needs more memory than its cgroup has: the kernel kills it."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
from PIL import Image

from loadtests.faults import balancer as haproxy
from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica, same_ports

HIERARCHIES = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}
"""Of cgroups, version 1 and 2: the file of the limit."""
ROOM_BYTES = 32 << 20
SIDE = 7000
"""Pixels: 147 MB as RGB, and within `FOVEA_MAX_IMAGE_PIXELS`."""


def missing() -> str:
    if reason := haproxy.missing():
        return reason
    try:
        with cgroup():
            return ""
    except OSError:
        return "no cgroup with a memory limit can be made here: it takes root, and a hierarchy that is writable"


@contextmanager
def cgroup() -> Iterator[tuple[Path, Path]]:
    """A cgroup, and the file of its limit."""
    for hierarchy, limit in HIERARCHIES.items():
        if hierarchy.is_dir():
            folder = hierarchy / f"fovea-fault-{os.getpid()}"
            folder.mkdir()
            try:
                if (folder / limit).exists():
                    yield folder, folder / limit
                    return
            finally:
                folder.rmdir()
    raise FileNotFoundError("no hierarchy with the memory controller")


async def provoke(seconds: float) -> Finding:
    with cgroup() as (group, limit):
        prefix = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        async with replica(prefix=prefix) as one, replica() as other:
            with haproxy.balancing({"one": one.ports, "other": other.ports}) as balancer:
                async with calling(balancer.http, balancer.grpc) as callers:
                    await callers.until(lambda: balancer.up("one") and balancer.up("other"))
                    await callers.steady(seconds)
                    process = one.process
                    limit_bytes = process.memory_info().rss + ROOM_BYTES
                    limit.write_text(str(limit_bytes))
                    large = [asyncio.create_task(ask(one.target.http, large_image())) for _ in range(4)]
                    start = time.perf_counter()
                    code = await asyncio.to_thread(process.wait, 60)
                    killed_s = time.perf_counter() - start
                    await asyncio.gather(*large)
                    await callers.until(lambda: not balancer.up("one"))
                    await callers.steady(seconds)
                    async with replica(*same_ports(one)):
                        await callers.until(lambda: balancer.up("one"))
                        await callers.steady(seconds)
                        await callers.stop()
    return Finding(
        f"a limit of {limit_bytes >> 20} MiB for one of two replicas behind HAProxy, and four images of {SIDE}×{SIDE}",
        f"the kernel killed it (exit code {code}) within {killed_s:.1f} s; what it had was lost, the four images too; "
        f"another one in its place was used again; {callers.again} requests asked again, all answered, the longest "
        f"after {callers.longest_s:.2f} s",
        callers.tallies,
    )


def large_image() -> bytes:
    """A PNG of few bytes and many pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def ask(address: str, image: bytes) -> None:
    """Who asks learns what becomes of it, and nobody else."""
    headers = {"content-type": "image/png"}
    async with aiohttp.ClientSession() as session:
        with suppress(aiohttp.ClientError):
            async with session.post(f"{address}/v1/classify", data=image, headers=headers) as response:
                await response.read()


FAULT = Fault("memory-limit", "Memory limit hit", provoke, missing, loses=True)
