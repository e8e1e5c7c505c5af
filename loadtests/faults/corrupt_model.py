"""Models that are no good, pushed to a repository that is polled."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import copied_repository, replica


async def provoke(seconds: float) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        model = copied_repository(Path(folder) / "models")
        settings = ["--model-control-mode", "poll", "--poll-interval-s", "0.2"]
        async with (
            replica(*settings, repository=model.parent) as service,
            calling(service.target.http, service.target.grpc) as callers,
        ):
            await callers.steady(seconds)

            push(model, "2", truncated=True)
            await callers.until(lambda: service.metric("fovea_model_failed", version="2") == 1)
            await callers.steady(seconds)
            kept = [await asyncio.to_thread(service.served)]
            shutil.rmtree(model / "2")
            await callers.until(lambda: service.metric("fovea_model_failed") == 0)

            labels = (model / "labels.txt").read_text()
            replace(model / "labels.txt", labels.partition("\n")[2])
            await callers.until(lambda: service.metric("fovea_model_failed", version="1") == 1)
            await callers.steady(seconds)
            kept.append(await asyncio.to_thread(service.served))
            replace(model / "labels.txt", labels)

            push(model, "3")
            await callers.until(lambda: "version 3" in service.served())
            await callers.steady(seconds)
            await callers.stop()
            reasons = service.log.read_text()
    assert all("version 1" in each for each in kept), kept
    assert "version 2: " in reasons, reasons
    assert "labels.txt: 9 labels for 10 classes" in reasons, reasons
    return Finding(
        "`poll`: a version with half a graph; then one label too few; then a good version 3",
        "neither was loaded, `fovea_model_failed` and the log say why; version 1 served on, and the service was ready; "
        "version 3 took over",
        callers.tallies,
    )


def push(model: Path, version: str, *, truncated: bool = False) -> None:
    """Another version, a copy of the first: written beside, then renamed."""
    beside = model.parent / f".{version}"
    shutil.copytree(model / "1", beside)
    if truncated:
        content = (beside / "model.onnx").read_bytes()
        (beside / "model.onnx").write_bytes(content[: len(content) // 2])
    beside.rename(model / version)


def replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}")
    beside.write_text(text)
    beside.rename(file)


FAULT = Fault("corrupt-model", "Corrupt model pushed", provoke)
