"""Which hardware to watch: the one that is named, or what is found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from loadtests.targets.cpu import Cpu
from loadtests.targets.hardware import Hardware
from loadtests.targets.tegra import Tegra
from loadtests.targets.tesla import Tesla, gpu_count

NAMES = ("cpu", "tesla", "tegra")
TEGRA_RELEASE = Path("/etc/nv_tegra_release")


def detect(name: str | None = None) -> Hardware:
    """The hardware of this name; unnamed, a Jetson board before an NVIDIA GPU before the processors.

    Whether it is there shows when it is started. Of several GPUs it is the one of the service's setting
    FOVEA_DEVICE_ID.

    Args:
        name: one of NAMES.

    Raises:
        SystemExit: there is no such name.
    """
    match name or _found():
        case "cpu":
            return Cpu()
        case "tesla":
            return Tesla(int(os.environ.get("FOVEA_DEVICE_ID") or 0))
        case "tegra":
            return Tegra()
        case other:
            raise SystemExit(f"error: there is no target {other!r}; there are {', '.join(NAMES)}")


def _found() -> str:
    if TEGRA_RELEASE.exists() or shutil.which("tegrastats"):
        return "tegra"
    return "tesla" if gpu_count() else "cpu"
