"""The environment that a peer runs in: its own interpreter and packages, at the versions of its requirements file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / ".tools" / "peers"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"


class EnvironmentMissingError(Exception):
    """It could not be made, and why."""


def environment(name: str) -> Path:
    """The folder of an environment with all of `requirements/<name>.txt`, made now where it is not there yet.

    Raises:
        EnvironmentMissingError: Python's venv or pip failed.
    """
    folder, requirements = FOLDER / name, REQUIREMENTS / f"{name}.txt"
    content = f"{requirements.read_text()}{sys.version}\n"
    marker = folder / "installed"
    if marker.is_file() and marker.read_text() == content:
        return folder
    print(f"installing {requirements.name} into {folder} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    # Without dependencies: the file names them all, and leaves out what one of them asks for and is not used here.
    _run(
        *(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--requirement", str(requirements)),
    )
    marker.write_text(content)
    return folder


def pinned_version(name: str, package: str) -> str:
    """The version of a package in `requirements/<name>.txt`."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return next(line.removeprefix(f"{package}==") for line in lines if line.startswith(f"{package}=="))


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        raise EnvironmentMissingError(said[0] if said else f"{' '.join(command)} ended with code {done.returncode}")
