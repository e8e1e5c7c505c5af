"""Install a real Triton server, to be a test's second opinion: `python -m tests.triton.install`.

It is the server that the PyTriton wheel carries. It goes into a folder of its own, as do the packages that its
models run with, since they and Fovea's do not go together: FOVEA_TEST_TRITON names it, `.tools/triton` is the default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SERVER = ("nvidia-pytriton==0.7.0",)
# Triton's interpreter is compiled against numpy 1: with numpy 2 every tensor arrives empty.
PACKAGES = ("numpy==1.26.4", "onnxruntime==1.32.0")
PINS = "\n".join([*SERVER, *PACKAGES, sys.version]) + "\n"


def folder() -> Path:
    return Path(os.environ.get("FOVEA_TEST_TRITON") or ROOT / ".tools" / "triton").resolve()


def tritonserver() -> Path:
    return folder() / "server" / "pytriton" / "tritonserver"


def packages() -> Path:
    return folder() / "packages"


def missing() -> str:
    """Why there is no Triton to be tested; empty if there is one."""
    marker = folder() / "installed"
    if marker.is_file() and marker.read_text() == PINS:
        return ""
    return f"no Triton server in {folder()}: python -m tests.triton.install"


def install() -> None:
    if not missing():
        return
    shutil.rmtree(folder(), ignore_errors=True)
    _pip(folder() / "server", SERVER)
    _pip(packages(), PACKAGES)
    stub = tritonserver() / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(stub / "triton_python_backend_stub", tritonserver() / "backends" / "python")
    (folder() / "installed").write_text(PINS)


def _pip(target: Path, requirements: tuple[str, ...]) -> None:
    # Without dependencies: what the requirements ask for besides is for what is not used here.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", str(target), *requirements], check=True)


if __name__ == "__main__":
    install()
    print(missing() or f"Triton is in {folder()}")
