"""Tools whose versions are not Fovea's: each in an environment of its own, `.tools/<name>`."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ToolEnvironment:
    """What `python -m tests.<name>.install` makes.

    Attributes:
        name: of the package in tests/ that has `requirements.txt`, every package at a version.
        what: the tool's name.
        with_pip: whether it wants to find pip beside it.
    """

    name: str
    what: str
    with_pip: bool = False

    @property
    def folder(self) -> Path:
        return ROOT / ".tools" / self.name

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def missing(self) -> str:
        """Why it cannot be run; empty if it can."""
        if self._marker.is_file() and self._marker.read_text() == self._pins():
            return ""
        return f"no {self.what} in {self.folder}: python -m tests.{self.name}.install"

    def install(self) -> None:
        """Make it, where it is not there as it should be, and say how it is."""
        if self.missing():
            venv.create(self.folder, clear=True, symlinks=True, with_pip=self.with_pip)
            pip = [sys.executable, "-m", "pip", "--python", str(self.program("python")), "--quiet"]
            options = ["--disable-pip-version-check", "--no-deps", "--no-compile", "--requirement"]
            subprocess.run([*pip, "install", *options, str(self._requirements)], check=True)
            self._marker.write_text(self._pins())
        print(self.missing() or f"{self.what} is in {self.folder}")

    @property
    def _requirements(self) -> Path:
        return ROOT / "tests" / self.name / "requirements.txt"

    @property
    def _marker(self) -> Path:
        return self.folder / "installed"

    def _pins(self) -> str:
        return self._requirements.read_text() + sys.version
