"""Install pip-audit, which looks pinned dependencies up among known vulnerabilities: `python -m tests.audit.install`.

It comes with a good many packages, so it goes into an environment of its own: `.tools/audit`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".tools" / "audit"
PROGRAM = FOLDER / "bin" / "pip-audit"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"


def missing() -> str:
    """Why it cannot be run; empty if it can."""
    marker = FOLDER / "installed"
    if marker.is_file() and marker.read_text() == _pins():
        return ""
    return f"no pip-audit in {FOLDER}: python -m tests.audit.install"


def install() -> None:
    if not missing():
        return
    venv.create(FOLDER, clear=True, symlinks=True, with_pip=True)  # It asks pip for its version.
    pip = [sys.executable, "-m", "pip", "--python", str(FOLDER / "bin" / "python"), "--quiet"]
    options = ["--disable-pip-version-check", "--no-deps", "--requirement", str(REQUIREMENTS)]
    subprocess.run([*pip, "install", *options], check=True)
    (FOLDER / "installed").write_text(_pins())


def _pins() -> str:
    return REQUIREMENTS.read_text() + sys.version


if __name__ == "__main__":
    install()
    print(missing() or f"pip-audit is in {FOLDER}")
