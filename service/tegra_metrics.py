"""A Jetson board's load, memory, power and temperatures, as tegrastats, which is part of its system, tells them.

What it prints differs from board to board and from release to release: NVIDIA's Jetson Linux Developer Guide,
"Tegrastats Utility".
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger("fovea")

INTERVAL_MS = 1000
STOP_TIMEOUT_S = 2.0

FIGURES = {
    "fovea_tegra_gpu_utilization": ("Share of the time in which the GPU was busy, 0 to 1.", ""),
    "fovea_tegra_memory_total_bytes": ("The board's memory.", ""),
    "fovea_tegra_memory_used_bytes": ("The board's memory that is in use.", ""),
    "fovea_tegra_power_watts": ("Power of each rail.", "rail"),
    "fovea_tegra_temperature_celsius": ("Temperature at each sensor.", "sensor"),
}
"""Meaning, and label, if any."""

MEMORY = re.compile(r"\bRAM (\d+)/(\d+)MB")
GPU_LOAD = re.compile(r"\bGR3D_FREQ (\d+)%")
SENSOR = re.compile(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C")
RAIL = re.compile(r"(?<!\S)([A-Z]\w*) (\d+)(?:mW)?/\d+(?:mW)?(?:/\d+(?:mW)?)?(?!\S)")
SWITCHED_OFF_C = -256.0
NOT_CONNECTED = "NC"

Figures = dict[str, dict[str, float]]
"""By metric, and by the value of its label (empty where it has none)."""


def parse(line: str) -> Figures:
    """The figures in a line of tegrastats; empty where it is something else.

    A rail's first number is its power now, in mW; what follows are means.
    """
    figures: Figures = {}
    if found := MEMORY.search(line):
        figures["fovea_tegra_memory_used_bytes"] = {"": int(found[1]) * 2.0**20}
        figures["fovea_tegra_memory_total_bytes"] = {"": int(found[2]) * 2.0**20}
    if found := GPU_LOAD.search(line):
        figures["fovea_tegra_gpu_utilization"] = {"": int(found[1]) / 100}
    sensors = {name: float(degrees) for name, degrees in SENSOR.findall(line) if float(degrees) > SWITCHED_OFF_C}
    if sensors:
        figures["fovea_tegra_temperature_celsius"] = sensors
    rails = {name: int(milliwatts) / 1e3 for name, milliwatts in RAIL.findall(line) if name != NOT_CONNECTED}
    if rails:
        figures["fovea_tegra_power_watts"] = rails
    return figures


class TegraMetrics(Collector):
    """Collector of the last line that tegrastats printed. `follow` reads them; once it ends there are no figures."""

    def __init__(self) -> None:
        self._figures: Figures = {}

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        for name, (text, label) in FIGURES.items():
            if values := figures.get(name):
                metric = GaugeMetricFamily(name, text, labels=[label] if label else [])
                for value_of_label, value in values.items():
                    metric.add_metric([value_of_label] if label else [], value)
                yield metric

    async def follow(self, command: str = "tegrastats") -> None:
        """Run tegrastats, and read what it prints, until it ends or this is cancelled."""
        try:
            process = await asyncio.create_subprocess_exec(
                command, "--interval", str(INTERVAL_MS), stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            log.warning("there are no metrics of the board: %s: %s", command, error.strerror)
            return
        assert process.stdout
        try:
            async for line in process.stdout:
                if figures := parse(line.decode(errors="replace")):
                    self._figures = figures
            log.warning("there are no metrics of the board any more: %s has ended", command)
        finally:
            self._figures = {}
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
