"""What the hardware did while a load ran, and what an image cost it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Series:
    """One figure over time: at least one value, each with its time in seconds from the start of the run.

    A value stands for the time since the one before it, the first for that since the start: the last one, taken at the
    end, for less than the others.
    """

    t_s: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.average(self.values, weights=np.diff(self.t_s, prepend=0.0)))

    @property
    def max(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Readings:
    """One run as the hardware saw it.

    Attributes:
        target: `cpu`, `tesla` or `tegra`.
        hardware: what it is. Of cpu: `machine`. Of tesla: `index`, `device`, `uuid`, `memory`, `power limit`, `driver`,
            `CUDA`. Of tegra: `board`, `release`, `power mode`, `memory`. What cannot be read is left out.
        duration_s: how long it was watched.
        figures: by name. Of every target, where they can be read: `power_w`, `cpu_utilisation_percent` (cpu, tegra),
            `gpu_utilisation_percent` (tesla, tegra), `gpu_temperature_c` (tesla, tegra), `memory_used_bytes` (tesla:
            of the GPU; tegra: of the board), `service_memory_bytes`. Of tesla: `sm_clock_mhz`, `memory_clock_mhz`.
            Of tegra: `gpu_clock_mhz`, `cpu_temperature_c`, `tj_temperature_c` and a `power_<rail>_w` for each rail.
        energy_j: of the whole run; None: not known, and the notes say why.
        service_cpu_s: processor time of the service's processes in the run; None: not known.
        notes: what could not be known and why, and what the figures cover.
    """

    target: str
    hardware: dict[str, str]
    duration_s: float
    figures: dict[str, Series]
    energy_j: float | None
    service_cpu_s: float | None
    notes: tuple[str, ...]

    @property
    def mean_w(self) -> float | None:
        """The energy over the time that it was used in; where it is not known, the mean of the power that was read."""
        if self.energy_j is not None:
            return self.energy_j / self.duration_s
        power = self.figures.get("power_w")
        return power.mean if power else None

    def as_json(self) -> dict[str, Any]:
        """What json.dumps takes.

        The keys are the attributes' names, in their order, with the same values; only `figures` differs: an object of
        `mean`, `max`, `t_s` and `values` (arrays of the same length) under each figure's name.
        """
        figures = {
            name: {"mean": series.mean, "max": series.max, **asdict(series)} for name, series in self.figures.items()
        }
        return {**asdict(self), "figures": figures}


@dataclass(frozen=True)
class Efficiency:
    """What a run gave for what it took.

    Attributes:
        mean_w: over the run; None: not known.
        images_per_j: which is images per second per watt; None: the energy is not known.
        service_cpu_us_per_image: processor time of the service's processes; None: not known.
        reason: why something is None; None: nothing is.
    """

    images_per_s: float
    mean_w: float | None
    images_per_j: float | None
    service_cpu_us_per_image: float | None
    reason: str | None


def efficiency(images: int, readings: Readings) -> Efficiency:
    """What this many images cost that were answered while the readings were taken."""
    reasons = []
    images_per_j = service_cpu_us_per_image = None
    if readings.energy_j:
        images_per_j = images / readings.energy_j
    else:
        reasons.append("the energy is not known")
    if images and readings.service_cpu_s is not None:
        service_cpu_us_per_image = 1e6 * readings.service_cpu_s / images
    else:
        reasons.append("the service's processor time is not known" if images else "no image was answered")
    return Efficiency(
        images / readings.duration_s,
        readings.mean_w,
        images_per_j,
        service_cpu_us_per_image,
        "; ".join(reasons) or None,
    )
