"""Install perf_analyzer, Triton's own load generator: `python -m tests.perf_analyzer.install`.

tritonclient's wheel carried it up to 2.51. It goes into a folder of its own, `.tools/perf_analyzer`, with the CUDA
runtime that it is linked with; libb64 must come from the system (Debian: libb64-0d).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".tools" / "perf_analyzer"
BINARY = FOLDER / "bin" / "perf_analyzer"
PACKAGES = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12==12.6.77")


def missing() -> str:
    """Why it cannot be run; empty if it can."""
    if not BINARY.is_file():
        return f"no perf_analyzer in {FOLDER}: python -m tests.perf_analyzer.install"
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError:
        return "perf_analyzer needs libb64 (Debian: libb64-0d)"
    return ""


def environment() -> dict[str, str]:
    return os.environ | {"LD_LIBRARY_PATH": str(FOLDER / "nvidia" / "cuda_runtime" / "lib")}


def install() -> None:
    if not BINARY.is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--target", str(FOLDER), *PACKAGES], check=True)


if __name__ == "__main__":
    install()
    print(missing() or f"perf_analyzer is in {FOLDER}")
