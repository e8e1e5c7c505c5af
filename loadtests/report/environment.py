"""What a load test measures and on what, for whoever reads its figures later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadtests.fetch import fetch
from loadtests.machine import describe_machine
from loadtests.report.result import Environment
from loadtests.report.senders import GENERATOR
from loadtests.target import Target, model_repository

OWN = "started for the load test, with log level warning"
NOT_SETTINGS_OF_THE_SERVICE = "FOVEA_LOADTEST_"


def describe_environment(target: Target, images: Sequence[bytes]) -> Environment:
    """Of the service, of the model that answers a request which names none, and of this machine.

    What cannot be asked of a service that runs elsewhere is None, but for one that was started here.
    """
    own = target.pid is not None
    answer = json.loads(fetch(f"{target.http}/v1/classify", images[0], "image/jpeg"))
    name, number = answer["model"], answer["version"]
    versions = json.loads(fetch(f"{target.http}/v1/models/{name}"))["versions"]
    served = next(each for each in versions if each["version"] == number)
    server = json.loads(fetch(f"{target.http}/v2"))
    mean_bytes = sum(map(len, images)) / len(images)
    hardware, _, _ = describe_machine().partition(";")
    return Environment(
        hardware=hardware,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        load_average=os.getloadavg()[0],
        gpu=_gpu(),
        operating_system=_operating_system(),
        python=platform.python_version(),
        onnxruntime=_onnxruntime() if own else None,
        fovea=server["version"],
        service=OWN if own else f"ran already, at {target.http}; this machine's facts are the load generator's",
        settings=_settings() if own else None,
        model=name,
        model_version=number,
        model_sha256=_sha256(model_repository() / name / number / "model.onnx") if own else None,
        execution_provider=served["execution_provider"],
        instances=served["instances"],
        max_batch_size=served["max_batch_size"],
        images=f"{len(images)} JPEGs in turn, one a request, {mean_bytes:,.0f} bytes on average",
        generator=f"{GENERATOR}; {'it shares' if own else 'where the service runs here too, it shares'} these cores",
    )


def _settings() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("FOVEA_") and not name.startswith(NOT_SETTINGS_OF_THE_SERVICE)
    }


def _sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _gpu() -> str | None:
    """Name and driver of each GPU that NVIDIA's tool knows of."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True)
    gpus = [", driver ".join(line.split(", ")) for line in found.stdout.splitlines()]
    return "; ".join(gpus) if found.returncode == 0 and gpus else None


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}, {platform.machine()}"


def _onnxruntime() -> str | None:
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{version(package)} ({package})"
        except PackageNotFoundError:
            continue
    return None
