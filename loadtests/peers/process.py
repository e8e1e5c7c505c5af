"""A server under load: started in a process group of its own, watched, and gone at the end with all it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtests.peers.peer import Command
from loadtests.peers.protocol import NotAnsweredError
from loadtests.targets.hardware import SamplingError
from loadtests.targets.process import ProcessTree

START_TIMEOUT_S = 120.0
EXIT_TIMEOUT_S = 15.0
POLL_S = 0.01
LOG_LINES = 3


class ServerFailedError(Exception):
    """A server that did not answer in time, or that ended, and the end of its log."""


@dataclass(frozen=True)
class Server:
    """One that answers.

    Attributes:
        cold_start_s: from its start to its first answer.
    """

    pid: int
    cold_start_s: float

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        tree = ProcessTree(self.pid)
        tree.start()
        return tree.sample()["service_cpu_s"]

    def pss_bytes(self) -> int:
        """Memory of all its processes; a page that several share counts once, in parts."""
        process = psutil.Process(self.pid)
        return sum(_pss_bytes(each.pid) for each in (process, *process.children(recursive=True)))


@contextmanager
def running(command: Command, folder: Path, log: Path, ask: Callable[[], object]) -> Iterator[Server]:
    """A server from its first answer on.

    Args:
        folder: its working folder.
        log: where it writes.
        ask: raises NotAnsweredError as long as it does not answer.

    Raises:
        ServerFailedError: it did not answer in time, or it ended, then or within the block.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command.arguments,
            env=inherited | command.settings,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while refusal := _refusal(ask):
            _raise_if_ended(process, log)
            if time.monotonic() - began > START_TIMEOUT_S:
                raise ServerFailedError(f"no answer in {START_TIMEOUT_S:g} s ({refusal}): {_end_of(log)}")
            time.sleep(POLL_S)
        try:
            yield Server(process.pid, time.monotonic() - began)
        except (NotAnsweredError, SamplingError):
            _raise_if_ended(process, log)
            raise
    finally:
        _end(process, command.shared_memory)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback address that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(each.getsockname()[1] for each in sockets)


def _refusal(ask: Callable[[], object]) -> str:
    """Why there is no answer; empty: there is one."""
    try:
        ask()
    except NotAnsweredError as error:
        return str(error) or "not answered"
    return ""


def _raise_if_ended(process: subprocess.Popen[bytes], log: Path) -> None:
    if (code := process.poll()) is not None:
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        raise ServerFailedError(f"it ended with {how}: {_end_of(log)}")


def _end(process: subprocess.Popen[bytes], shared_memory: str | None) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(EXIT_TIMEOUT_S)
    # Some leave processes of theirs behind, and the memory that they shared.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if shared_memory:
        for region in Path("/dev/shm").glob(f"{shared_memory}*"):
            region.unlink(missing_ok=True)


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-LOG_LINES:]) or "its log is empty"


def _pss_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
