"""The real service, in a process of its own, on ports that were free."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parent.parent.parent
EXIT_TIMEOUT_S = 60.0
GRPC_TRANSPORT = os.environ.get("FOVEA_TEST_GRPC_TRANSPORT", "grpcio")
"""Of every service that the tests start; `FOVEA_TEST_GRPC_TRANSPORT=native` puts the same tests to the other one."""
FRONT_PROCESSES = int(os.environ.get("FOVEA_TEST_FRONT_PROCESSES", "1"))
"""The same, for several front processes."""


@dataclass(frozen=True)
class RunningService:
    """A service that has announced itself."""

    process: subprocess.Popen[str]
    announcement: str
    log: Path

    @property
    def http(self) -> str:
        return self._address(r"HTTP +(https?://\S+)")

    @property
    def grpc(self) -> str:
        return self._address(r"gRPC +(\S+)")

    @property
    def metrics(self) -> str:
        return "http://" + self._address(r"metrics +http://(\S+)")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 where there are none."""
        return metric_of(self.metrics_page(), name, **labels)

    def metrics_page(self) -> str:
        with urllib.request.urlopen(self.metrics, timeout=60) as response:
            page: bytes = response.read()
        return page.decode()

    def stderr(self) -> str:
        return self.log.read_text()

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def terminate(self) -> None:
        self.process.terminate()

    def exit_code(self) -> int:
        return self.process.wait(EXIT_TIMEOUT_S)

    def _address(self, pattern: str) -> str:
        found = re.search(pattern, self.announcement)
        assert found, self.announcement
        return found[1]


def metric_of(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples on a page that carry these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextmanager
def running(repository: Path, *arguments: str, may_log: str = "", **settings: object) -> Iterator[RunningService]:
    """A service from its announcement on; at the end it must stop with code 0 and no traceback in its log.

    Args:
        may_log: the error that a test provokes in a library that logs its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command("serve", *arguments),
                env=environment(model_repository=repository, **settings),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert process.stdout
        try:
            announcement = ""
            while "metrics  http://" not in announcement:
                line = process.stdout.readline()
                assert line, f"the service ended with code {process.wait()}: {log.read_text()}"
                announcement += line
            service = RunningService(process, announcement, log)
            yield service
            service.terminate()
            assert service.exit_code() == 0, service.stderr()
            assert ("Traceback" in service.stderr()) == bool(may_log), service.stderr()
            assert may_log in service.stderr()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def lasting_port() -> int:
    """One that is free, and stays so: below those that the system hands out."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            port: int = free.getsockname()[1]
            return port


async def until(true: Callable[[], bool]) -> None:
    """Wait for what only polling can tell, as a metric of another process."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def wait_for_metric(service: RunningService, at_least: float, name: str, **labels: str) -> None:
    await until(lambda: service.metric(name, **labels) >= at_least)


def run_to_end(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """`fovea` with arguments and settings, waited for."""
    return subprocess.run(
        command(*arguments),
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service", *arguments]


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with these settings of the service and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("FOVEA_")}
    given = {
        "http_port": 0,
        "grpc_port": 0,
        "metrics_port": 0,
        "grpc_transport": GRPC_TRANSPORT,
        "front_processes": FRONT_PROCESSES,
        **settings,
    }
    return inherited | {f"FOVEA_{name.upper()}": str(value) for name, value in given.items()}
