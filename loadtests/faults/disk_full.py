"""A disk with no room left: for traces, for an upload, for a model that is pushed."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from loadtests.faults.callers import IMAGE, calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import copied_repository, replica
from loadtests.fetch import fetch
from loadtests.target import BUNDLED_REPOSITORY

ROOM_BYTES = 3_000_000
"""Beside the repository: less than another version of its model takes."""
UPLOAD_BYTES = 2_000_000
"""More than is kept in memory while it arrives."""


def missing() -> str:
    if not shutil.which("mount"):
        return "mount is not installed"
    try:
        with small_disk(1_000_000):
            return ""
    except subprocess.CalledProcessError:
        return "mount may not be used: a small disk takes root"


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """A disk of its own, until the context ends."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder]
        subprocess.run(command, check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


async def provoke(seconds: float) -> Finding:
    repository_bytes = sum(file.stat().st_size for file in BUNDLED_REPOSITORY.rglob("*") if file.is_file())
    with small_disk(repository_bytes + ROOM_BYTES) as disk:
        model = copied_repository(disk / "models")
        settings = ["--model-control-mode", "poll", "--poll-interval-s", "0.2"]
        settings += ["--trace-file", str(disk / "trace.json"), "--log-and-trace-changes", "true"]
        async with replica(*settings, repository=model.parent, prefix=["env", f"TMPDIR={disk}"]) as service:
            wish = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "20"}
            url = f"{service.target.http}/v2/trace/setting"
            await asyncio.to_thread(fetch, url, json.dumps(wish).encode(), "application/json")
            async with calling(service.target.http, service.target.grpc) as callers:
                await callers.steady(seconds)
                pushed = push(model / "1", model / "2")
                await callers.until(lambda: service.metric("fovea_model_failed", version="2") == 1)
                served = await asyncio.to_thread(service.served)
                # The folder for uploads is chosen with the first one.
                assert await uploaded(service.target.http) == 200
                fill(disk)
                upload = await uploaded(service.target.http)
                await callers.until(lambda: "traces are lost" in service.log.read_text())
                await callers.steady(seconds)
                await callers.stop()
    return Finding(
        "a version pushed to a disk without room for it, which has traces and uploads too; then the disk filled up",
        f"who pushed was told “{pushed}”; half a version is not loaded, {served.partition(' (')[0]} served on; traces "
        f"were lost, and the log says so; an upload of 2 MB was answered {upload}: uploads are kept in memory",
        callers.tallies,
    )


def push(version: Path, place: Path) -> str:
    """Copy a version straight to its place, as one should not; what the copy failed with."""
    copy = subprocess.run(["cp", "-r", str(version), str(place)], capture_output=True, text=True, check=False)
    return copy.stderr.rpartition(": ")[2].strip()


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


async def uploaded(address: str) -> int:
    """The status of an image that is too large for the memory that uploads have."""
    form = aiohttp.FormData()
    form.add_field("image", io.BytesIO(IMAGE + bytes(UPLOAD_BYTES)), filename="image.jpg", content_type="image/jpeg")
    async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/classify", data=form) as response:
        await response.read()
        return response.status


FAULT = Fault("disk-full", "Disk full", provoke, missing)
