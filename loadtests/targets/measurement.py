"""Hardware watched while a load runs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from threading import Event
from types import TracebackType
from typing import Self

import numpy as np

from loadtests.targets.hardware import Hardware, SamplingError
from loadtests.targets.process import ProcessTree
from loadtests.targets.readings import Readings, Series


class Measurement:
    """Samples the hardware, and the service's processes, for as long as the block runs; then it has `readings`:

        with Measurement(detect()) as measurement:
            run_load()
        readings = measurement.readings

    Args:
        hardware: what serves.
        pid: the service's process, where it runs on this machine.

    Raises:
        SystemExit: the hardware or the process is not there.
    """

    readings: Readings

    def __init__(self, hardware: Hardware, pid: int | None = None) -> None:
        self._hardware = _Sampler(hardware)
        self._samplers = [self._hardware] if pid is None else [self._hardware, _Sampler(ProcessTree(pid))]

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for sampler in self._samplers:
                sampler.source.start()
                opened.callback(sampler.source.stop)
            threads = opened.enter_context(ThreadPoolExecutor(len(self._samplers)))
            self._over = Event()
            opened.callback(self._over.set)
            self._start_s = time.monotonic()
            for sampler in self._samplers:
                sampler.take()
            self._loops = [threads.submit(sampler.run, self._over) for sampler in self._samplers]
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        duration_s = time.monotonic() - self._start_s
        with self._opened:
            self._over.set()
            for sampler, loop in zip(self._samplers, self._loops, strict=True):
                loop.result()
                sampler.take()
        self.readings = self._read(duration_s)

    def _read(self, duration_s: float) -> Readings:
        figures: dict[str, Series] = {}
        facts: dict[str, str] = {}
        notes: list[str] = []
        for sampler in self._samplers:
            figures |= sampler.figures(self._start_s)
            facts |= sampler.source.facts
            notes += sampler.source.notes + ([sampler.ended] if sampler.ended else [])
        energy, cpu = figures.pop("energy_j", None), figures.pop("service_cpu_s", None)
        if energy and "power_w" not in figures:
            figures["power_w"] = rate(energy)
        energy_j = None
        if self._hardware.ended:
            notes.append("the energy is not known, as not all of the run was seen")
        elif energy:
            energy_j = energy.values[-1] - energy.values[0]
        elif power := figures.get("power_w"):
            energy_j = integral(power, duration_s)
            notes.append("the energy is the power integrated over time, as nothing counts it")
        return Readings(
            target=self._hardware.source.name,
            hardware=facts,
            duration_s=duration_s,
            figures=figures,
            energy_j=energy_j,
            service_cpu_s=cpu.values[-1] - cpu.values[0] if cpu and not self._samplers[-1].ended else None,
            notes=tuple(notes),
        )


class _Sampler:
    """Takes samples of one source until they end."""

    def __init__(self, source: Hardware) -> None:
        self.source = source
        self.ended: str | None = None
        self._samples: list[tuple[float, dict[str, float]]] = []

    def run(self, over: Event) -> None:
        while self.ended is None and not over.wait(self.source.interval_s):
            self.take()

    def take(self) -> None:
        if self.ended is None:
            try:
                figures = self.source.sample()
            except SamplingError as ended:
                self.ended = str(ended)
            else:
                self._samples.append((time.monotonic(), figures))

    def figures(self, start_s: float) -> dict[str, Series]:
        names = dict.fromkeys(name for _, figures in self._samples for name in figures)
        return {name: self._series(name, start_s) for name in names}

    def _series(self, name: str, start_s: float) -> Series:
        told = [(time_s - start_s, figures[name]) for time_s, figures in self._samples if name in figures]
        t_s, values = zip(*told, strict=True)
        return Series(t_s, values)


def rate(counter: Series) -> Series:
    """How fast a counter grew, from one reading to the next. It has at least two: one at the start, one at the end."""
    steps = list(zip(pairwise(counter.t_s), pairwise(counter.values), strict=True))
    rates = [(value - last) / (t_s - last_s) for (last_s, t_s), (last, value) in steps]
    return Series(counter.t_s[1:], tuple(rates))


def integral(power: Series, duration_s: float) -> float:
    """Joules, by the trapezoidal rule; the first value holds from the start on, the last one to the end."""
    watts = (power.values[0], *power.values, power.values[-1])
    return float(np.trapezoid(watts, (0.0, *power.t_s, duration_s)))
