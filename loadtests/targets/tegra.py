"""The target `tegra`: a Jetson board, told of by tegrastats, which is part of its system.

What tegrastats prints differs from board to board and from release to release. NVIDIA describes it in the Jetson Linux
Developer Guide, under "Tegrastats Utility".
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from loadtests.targets.hardware import SamplingError

MEMORY = re.compile(r"\bRAM (\d+)/(\d+)MB")
CPU = re.compile(r"\bCPU \[([^]]*)]")
GPU = re.compile(r"\bGR3D_FREQ(?: (\d+)%)?(?: ?@\[?([\d,]+))?")
TEMPERATURE = re.compile(r"\b(cpu|gpu|tj)@(-?[\d.]+)C", re.IGNORECASE)
RAIL = re.compile(r"(?<!\S)([A-Z]\w*) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)+(?!\S)")
POWER_MODE = re.compile(r"NV Power Mode: *(\S+)\s+(\d+)")

WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that feed all the others: a module's, the Nano's, that of Thor's developer kit."""

PARTS = ("VDDQ_VDD2_1V8AO",)
"""Rails that another one feeds: this one VIN_SYS_5V0 does, on AGX Orin."""

SWITCHED_OFF_C = -256.0
SILENT_LINES = 5
STOP_TIMEOUT_S = 5.0


class Tegra:
    """The figures of tegrastats' lines, each line once.

    Args:
        line_interval_s: between the lines.
        root: where the files are that tell the board.
    """

    def __init__(self, line_interval_s: float = 1.0, root: Path = Path("/")) -> None:
        self.name = "tegra"
        self.interval_s = line_interval_s / 10  # A line gets the time at which it is read.
        self._line_interval_s = line_interval_s
        self._root = root

    def start(self) -> None:
        self.facts: dict[str, str] = {}
        self.notes: list[str] = []
        self._unread = b""
        self._seen: set[str] = set()
        self._tell_board()
        command = ["tegrastats", "--interval", str(round(1e3 * self._line_interval_s))]
        try:
            self._process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            raise SystemExit(f"error: there is no tegra target: tegrastats: {error.strerror}") from None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._last_line_at = time.monotonic()

    def _tell_board(self) -> None:
        for fact, path in (("board", "proc/device-tree/model"), ("release", "etc/nv_tegra_release")):
            with suppress(OSError):
                self.facts[fact] = (self._root / path).read_text().strip("\0# \n")
        try:
            told = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=STOP_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.notes.append(f"the power mode is not known: {error}")
            return
        if found := POWER_MODE.search(told.stdout):
            self.facts["power mode"] = f"{found[1]} ({found[2]})"
        else:
            said = " ".join((told.stdout + told.stderr).split())
            self.notes.append(f"the power mode is not known: nvpmodel -q says {said!r}")

    def sample(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        for line in self._new_lines():
            if told := parse(line):
                figures = told
                self._note(line, told)
        now = time.monotonic()
        if figures:
            self._last_line_at = now
        elif now - self._last_line_at > SILENT_LINES * self._line_interval_s:
            raise SamplingError(f"tegrastats told nothing for {SILENT_LINES * self._line_interval_s:g} s")
        return figures

    def _new_lines(self) -> list[str]:
        assert self._process.stdout is not None
        try:
            read = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        if not read:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            raise SamplingError(f"tegrastats ended during the run, with exit code {self._process.returncode}")
        *lines, self._unread = (self._unread + read).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _note(self, line: str, figures: dict[str, float]) -> None:
        """What is said once, of the first line that shows it."""
        if found := MEMORY.search(line):
            self.facts["memory"] = f"{int(found[2]):,} MB"
        if "power_w" in figures and "power_w" not in self._seen:
            rails = counted_rails(read_rails(line))
            if rails[0] in WHOLE:
                self.notes.append(f"power is that of the rail {rails[0]}, which feeds the others")
            else:
                self.notes.append(f"power is the sum of the rails {', '.join(rails)}, as no rail here feeds them all")
        self._seen.update(figures)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if "power_w" not in self._seen:
            self.notes.append(
                "power and energy are not known: tegrastats told of no power rails; some boards have no sensors, "
                "and some releases tell only root"
            )
        if "gpu_utilisation_percent" not in self._seen:
            self.notes.append("the GPU's utilisation is not known: tegrastats did not tell it")


def parse(line: str) -> dict[str, float]:
    """The figures in one line of tegrastats: none, if it is something else."""
    figures: dict[str, float] = {}
    if found := MEMORY.search(line):
        figures["memory_used_bytes"] = int(found[1]) << 20
    if (found := CPU.search(line)) and (loads := re.findall(r"(\d+)%", found[1])):
        figures["cpu_utilisation_percent"] = fmean(map(int, loads))  # Of the cores that are on.
    if found := GPU.search(line):
        if found[1]:
            figures["gpu_utilisation_percent"] = int(found[1])
        if found[2]:
            figures["gpu_clock_mhz"] = max(map(int, found[2].split(",")))
    for sensor, degrees in TEMPERATURE.findall(line):
        if float(degrees) > SWITCHED_OFF_C:
            figures[f"{sensor.lower()}_temperature_c"] = float(degrees)
    rails = read_rails(line)
    figures.update({f"power_{name.lower()}_w": power_w for name, power_w in rails.items()})
    if rails:
        figures["power_w"] = sum(rails[name] for name in counted_rails(rails))
    return figures


def read_rails(line: str) -> dict[str, float]:
    """Power by rail at this moment, in watts. (What follows in a line is the mean since tegrastats was started.)"""
    return {name: int(milliwatts) / 1e3 for name, milliwatts in RAIL.findall(line) if name != "NC"}


def counted_rails(rails: Collection[str]) -> list[str]:
    """Those that make up the whole: one that feeds all, or else all that no other feeds."""
    whole = [name for name in WHOLE if name in rails][:1]
    return whole or [name for name in rails if name not in PARTS]
