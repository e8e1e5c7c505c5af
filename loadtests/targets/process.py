"""The processes of the service under load."""

from __future__ import annotations

from contextlib import suppress

import psutil

from loadtests.targets.hardware import SamplingError


class ProcessTree:
    """A process and all below it: `service_cpu_s`, and `service_memory_bytes`, in which shared pages count twice."""

    def __init__(self, pid: int, interval_s: float = 1.0) -> None:
        self.name = "service"
        self.interval_s = interval_s
        self._pid = pid

    def start(self) -> None:
        self.facts: dict[str, str] = {}
        self.notes: list[str] = []
        try:
            self._process = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            raise SystemExit(f"error: there is no process {self._pid} to take for the service") from None

    def sample(self) -> dict[str, float]:
        try:
            ended = self._process.status() == psutil.STATUS_ZOMBIE
            tree = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            ended = True
        if ended:
            raise SamplingError(f"the service (process {self._pid}) ended during the run")
        memory_bytes, cpu_s = 0, 0.0
        for process in tree:
            with suppress(psutil.NoSuchProcess):  # A child may end at any time.
                times = process.cpu_times()
                memory_bytes += process.memory_info().rss
                # With those that it has seen end, so that nothing is lost with a child.
                cpu_s += times.user + times.system + times.children_user + times.children_system
        return {"service_memory_bytes": memory_bytes, "service_cpu_s": cpu_s}

    def stop(self) -> None:
        """Nothing was opened."""
