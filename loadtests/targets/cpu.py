"""The target `cpu`: how busy the machine's cores are, and the energy that its processors count of themselves (RAPL)."""

from __future__ import annotations

from pathlib import Path

import psutil

from loadtests.machine import describe_machine

POWERCAP = Path("/sys/class/powercap")


class Cpu:
    """`cpu_utilisation_percent` of all cores together; `energy_j` of processors and memory, where RAPL can be read.

    Args:
        powercap: the kernel's folder of RAPL counters, described in its Documentation/power/powercap/powercap.rst.
    """

    def __init__(self, interval_s: float = 1.0, powercap: Path = POWERCAP) -> None:
        self.name = "cpu"
        self.interval_s = interval_s
        self._powercap = powercap

    def start(self) -> None:
        self.facts = {"machine": describe_machine()}
        self.notes = ["utilisation and energy are of the whole machine, with all that runs on it"]
        self._counters: list[_EnergyCounter] = []
        self._busy_s, self._total_s = _core_seconds()
        folders = sorted(self._powercap.glob("intel-rapl:*"))
        try:
            self._counters = [_EnergyCounter(folder) for folder in folders if _counts(folder)]
        except OSError as error:
            self.notes.append(
                f"the energy is not known: {error.filename}: {error.strerror}; usually only root reads it"
            )
            return
        if self._counters:
            self.notes.append(f"the energy is RAPL's of {', '.join(counter.name for counter in self._counters)}")
        else:
            self.notes.append(
                f"the energy is not known: there is no RAPL counter in {self._powercap}, as in most virtual machines "
                "and containers, and on processors that are not x86"
            )

    def sample(self) -> dict[str, float]:
        figures = {}
        busy_s, total_s = _core_seconds()
        if total_s > self._total_s:
            # The kernel's idle time may run ahead of the others' by a tick, and sums of floats by their rounding.
            busy_share = (busy_s - self._busy_s) / (total_s - self._total_s)
            figures["cpu_utilisation_percent"] = 100 * min(max(busy_share, 0.0), 1.0)
            self._busy_s, self._total_s = busy_s, total_s
        if self._counters:
            figures["energy_j"] = sum(counter.used_j() for counter in self._counters)
        return figures

    def stop(self) -> None:
        """Nothing was opened."""


class _EnergyCounter:
    """One RAPL counter, from here on. It is to be read more often than it starts again from zero: every few minutes."""

    def __init__(self, folder: Path) -> None:
        self.name = (folder / "name").read_text().strip()
        self._file = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj = int(self._file.read_text())
        self._used_uj = 0

    def used_j(self) -> float:
        now_uj = int(self._file.read_text())
        self._used_uj += (now_uj - self._last_uj) % self._range_uj
        self._last_uj = now_uj
        return self._used_uj / 1e6


def _counts(folder: Path) -> bool:
    """Whether no other zone holds this one's energy too: core and uncore are in their package, packages are in psys."""
    return (folder / "name").read_text().startswith(("package-", "dram"))


def _core_seconds() -> tuple[float, float]:
    """Busy and all, since the machine started, of all cores together."""
    times = psutil.cpu_times()._asdict()
    # The kernel counts guests among user and nice already.
    total_s = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total_s - times["idle"] - times.get("iowait", 0.0), total_s
