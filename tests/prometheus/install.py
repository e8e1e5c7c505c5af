"""Install Prometheus, and its promtool: `python -m tests.prometheus.install`.

They are Debian's, unpacked into a folder of their own, `.tools/prometheus`: nothing is started, and root is not needed.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".tools" / "prometheus"
PROMETHEUS = FOLDER / "usr" / "bin" / "prometheus"
PROMTOOL = FOLDER / "usr" / "bin" / "promtool"


def missing() -> str:
    """Why they cannot be run; empty if they can."""
    if PROMETHEUS.is_file() and PROMTOOL.is_file():
        return ""
    return f"no prometheus and promtool in {FOLDER}: python -m tests.prometheus.install"


def install() -> None:
    """Raises:
    OSError, CalledProcessError: this is no Debian, or it cannot reach its packages.
    """
    if missing():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["apt-get", "download", "--quiet", "prometheus"], cwd=folder, check=True)
            (package,) = Path(folder).glob("*.deb")
            FOLDER.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg-deb", "--extract", package, FOLDER], check=True)


if __name__ == "__main__":
    install()
    print(missing() or f"prometheus and promtool are in {FOLDER}")
