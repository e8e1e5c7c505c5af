"""Install checkov, which looks for what is unsafe in manifests: `python -m tests.checkov.install`.

It comes with a great many packages, whose versions are not Fovea's, so it goes into an environment of its own:
`.tools/checkov`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".tools" / "checkov"
PYTHON = FOLDER / "bin" / "python"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"


def missing() -> str:
    """Why it cannot be run; empty if it can."""
    marker = FOLDER / "installed"
    if marker.is_file() and marker.read_text() == _pins():
        return ""
    return f"no checkov in {FOLDER}: python -m tests.checkov.install"


def install() -> None:
    if not missing():
        return
    venv.create(FOLDER, clear=True, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--requirement", str(REQUIREMENTS)], check=True)
    (FOLDER / "installed").write_text(_pins())


def _pins() -> str:
    return REQUIREMENTS.read_text() + sys.version


if __name__ == "__main__":
    install()
    print(missing() or f"checkov is in {FOLDER}")
