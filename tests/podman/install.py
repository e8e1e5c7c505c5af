"""Install what container images are built and tried with, offline from then on: `python -m tests.podman.install`.

podman and mmdebstrap come from the distribution (Debian or Ubuntu, as root). No registry is asked for a base image: it
is made of Debian's packages, as `localhost/fovea-test-base`. The wheels that the images install lie in
`.tools/wheelhouse`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = Path(__file__).resolve().parent / "containers.conf"
WHEELHOUSE = ROOT / ".tools" / "wheelhouse"
REQUIREMENTS = [ROOT / "deploy" / "docker" / name for name in ("build.txt", "cpu.txt")]
PROGRAMS = ("podman", "runc", "catatonit", "mmdebstrap")
"""Each is in a package of its name."""
BASE = "localhost/fovea-test-base"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,libstdc++6"
"""What the image that stands in the Dockerfiles has too."""
PYTHON = "3.11"
"""The suite's."""


def missing() -> str:
    """Why no image can be built; empty if one can."""
    absent = [name for name in ("podman", "runc", "catatonit") if not shutil.which(name)]
    if absent:
        return f"no {' and no '.join(absent)}: python -m tests.podman.install"
    if not _has_base():
        return f"no image {BASE}: python -m tests.podman.install"
    if not _has_wheels():
        return f"no wheels for these requirements in {WHEELHOUSE}: python -m tests.podman.install"
    return ""


def environment() -> dict[str, str]:
    return os.environ | {"CONTAINERS_CONF": str(CONFIGURATION)}


def install() -> None:
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *absent]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if not _has_base():
        _make_base()
    if not _has_wheels():
        _download_wheels()


def _has_base() -> bool:
    command = ["podman", "image", "exists", BASE]
    return subprocess.run(command, env=environment(), check=False).returncode == 0


def _make_base() -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        make = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}", SUITE, str(archive)]
        subprocess.run(make, check=True)
        subprocess.run(["podman", "import", "--quiet", str(archive), BASE], env=environment(), check=True)


def _has_wheels() -> bool:
    marker = WHEELHOUSE / "requirements"
    return marker.is_file() and marker.read_text() == _requirements()


def _download_wheels() -> None:
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--python-version", PYTHON, "--only-binary=:all:", "--require-hashes", "--dest", str(WHEELHOUSE)]
    for requirements in REQUIREMENTS:
        subprocess.run([*command, "--requirement", str(requirements)], check=True)
    (WHEELHOUSE / "requirements").write_text(_requirements())


def _requirements() -> str:
    return "".join(path.read_text() for path in REQUIREMENTS)


if __name__ == "__main__":
    install()
    print(missing() or f"{BASE} and the wheels in {WHEELHOUSE} are there")
