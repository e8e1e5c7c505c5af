"""podman's commands, and containers of the service."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.podman.install import BASE, ROOT, WHEELHOUSE, environment

HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:size=64m"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=512m", "--pids-limit=256"),
)
"""What docs/containers.md says of how to run it."""
START_TIMEOUT_S = 120.0


def podman(*arguments: str, timeout_s: float = 120.0) -> str:
    """What podman prints on stdout."""
    ended = subprocess.run(
        ["podman", *arguments], env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def build(dockerfile: Path, tag: str) -> None:
    """An image on the base that was made here; nothing is fetched."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "pip.conf"
        configuration.write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")
        podman(
            *("build", "--quiet", "--format=docker", "--layers=false", "--pull=never", "--network=none"),
            *("--volume", f"{WHEELHOUSE}:/wheelhouse:ro", "--volume", f"{configuration}:/etc/pip.conf:ro"),
            *("--build-arg", f"PYTHON_IMAGE={BASE}", "--build-arg", "REVISION=tested"),
            *("--file", str(dockerfile), "--tag", tag, str(ROOT)),
            timeout_s=300,
        )


@dataclass(frozen=True)
class Container:
    """One that runs."""

    name: str

    def address(self, port: int) -> str:
        """Where a port of it is on this machine, as host:port."""
        return podman("port", self.name, str(port)).strip()

    def healthy(self) -> bool:
        """What the image's own health check says, asked for once."""
        command = ["podman", "healthcheck", "run", self.name]
        return subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0

    def stop(self) -> int:
        """Send SIGTERM, and SIGKILL where that does not end it within a minute; the exit code."""
        podman("stop", "--time=60", self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def inspect(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(podman("container", "inspect", self.name))
        return found[0]

    def log(self) -> str:
        ended = subprocess.run(
            ["podman", "logs", self.name], env=environment(), capture_output=True, text=True, check=True
        )
        return ended.stdout + ended.stderr


@contextmanager
def running(image: str, *options: str) -> Iterator[Container]:
    """A container of the service, hardened, its ports published on the loopback interface; live, if not yet ready."""
    ports = [f"--publish=127.0.0.1::{port}" for port in (8000, 8001, 8002)]
    container = Container(podman("run", "--detach", *HARDENED, *ports, *options, image).strip())
    try:
        try:
            wait_until_answered(f"http://{container.address(8002)}/v2/health/live")
        except AssertionError as error:
            error.add_note(container.log())
            raise
        yield container
    finally:
        podman("rm", "--force", "--time=0", container.name)


def wait_until_answered(url: str) -> None:
    """Wait for 200 OK; a container's start is told by nothing else."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline, f"{url} did not answer in {START_TIMEOUT_S:g} s"
            time.sleep(0.1)
