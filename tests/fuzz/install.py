"""Install atheris, coverage-guided fuzzing for Python: `python -m tests.fuzz.install`.

It goes into a folder of its own, `.tools/atheris`: it is large, and has no wheel for every Python and machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".tools" / "atheris"
PACKAGE = "atheris==3.0.0"


def missing() -> str:
    """Why it cannot be run; empty if it can."""
    return "" if (FOLDER / "atheris").is_dir() else f"no atheris in {FOLDER}: python -m tests.fuzz.install"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(FOLDER)}


def install() -> None:
    if missing():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--only-binary=:all:", "--target", str(FOLDER), PACKAGE], check=True)


if __name__ == "__main__":
    install()
    print(missing() or f"atheris is in {FOLDER}")
