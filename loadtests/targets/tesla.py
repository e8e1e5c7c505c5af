"""The target `tesla`: an NVIDIA GPU, asked through NVML, the library behind nvidia-smi."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pynvml as nvml

from loadtests.targets.hardware import SamplingError

# https://docs.nvidia.com/deploy/nvml-api
FIGURES: dict[str, Callable[[Any], float]] = {
    "gpu_utilisation_percent": lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_used_bytes": lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "sm_clock_mhz": lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "power_w": lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,  # From Ampere on the mean of the last second.
    "gpu_temperature_c": lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "energy_j": lambda gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,  # From Volta on.
}

FACTS: dict[str, Callable[[Any], str]] = {
    "device": nvml.nvmlDeviceGetName,
    "uuid": nvml.nvmlDeviceGetUUID,
    "memory": lambda gpu: f"{nvml.nvmlDeviceGetMemoryInfo(gpu).total:,} bytes",
    "power limit": lambda gpu: f"{nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3:g} W",
    "driver": lambda gpu: nvml.nvmlSystemGetDriverVersion(),
    "CUDA": lambda gpu: "{}.{}".format(*divmod(nvml.nvmlSystemGetCudaDriverVersion() // 10, 100)),
}

LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""Of one lane of PCI Express, in one direction, by generation."""


class Tesla:
    """The figures of one GPU, as many of FIGURES as it has.

    Args:
        device: its index in nvidia-smi. CUDA counts otherwise where CUDA_VISIBLE_DEVICES is set.
    """

    def __init__(self, device: int = 0, interval_s: float = 0.1) -> None:
        self.name = "tesla"
        self.interval_s = interval_s
        self._device = device

    def start(self) -> None:
        self.facts = {"index": str(self._device)}
        self.notes = ["power and energy are of the GPU's board, not of the machine around it"]
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise SystemExit(f"error: there is no tesla target: NVML says {error}") from None
        try:
            self._open()
        except BaseException:
            nvml.nvmlShutdown()
            raise

    def _open(self) -> None:
        count = nvml.nvmlDeviceGetCount()
        if not 0 <= self._device < count:
            raise SystemExit(f"error: there is no GPU {self._device}: NVML finds {count}, counted from 0")
        try:
            self._gpu = nvml.nvmlDeviceGetHandleByIndex(self._device)
        except nvml.NVMLError as error:
            raise SystemExit(f"error: GPU {self._device} cannot be opened: NVML says {error}") from None
        self.facts.update(self._known(FACTS))
        if self._mig():
            self.notes.append("MIG is on: all figures are of the whole GPU, as an instance has no power of its own")
        self._figures = {name: FIGURES[name] for name in self._known(FIGURES)}

    def _known(self, readers: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
        """What can be read; a note on each that cannot."""
        known = {}
        for name, read in readers.items():
            try:
                known[name] = read(self._gpu)
            except nvml.NVMLError as error:
                self.notes.append(f"{name}: NVML says {error}")
        return known

    def _mig(self) -> bool:
        try:
            current, _ = nvml.nvmlDeviceGetMigMode(self._gpu)
        except nvml.NVMLError:
            return False  # Before Ampere there was none.
        return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)

    def sample(self) -> dict[str, float]:
        try:
            return {name: read(self._gpu) for name, read in self._figures.items()}
        except nvml.NVMLError as error:
            raise SamplingError(f"the GPU gave no figures any more: NVML says {error}") from None

    def stop(self) -> None:
        with suppress(nvml.NVMLError):  # The readings are worth more than what a lost GPU says now.
            nvml.nvmlShutdown()


def bandwidths(device: int) -> dict[str, float]:
    """Bytes a second, as far as NVML knows: `link`, from the host, and `memory`, the GPU's own.

    Args:
        device: its index in nvidia-smi.
    """
    found = {}
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        try:
            gpu = nvml.nvmlDeviceGetHandleByIndex(device)
            with suppress(nvml.NVMLError, KeyError):
                lane = LANE_BYTES_PER_S[nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu)]
                found["link"] = lane * nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu)
            with suppress(nvml.NVMLError):
                # Twice in each cycle, as with all memory of GPUs that NVML has a clock of.
                transfers_per_s = 2e6 * nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM)
                found["memory"] = transfers_per_s * nvml.nvmlDeviceGetMemoryBusWidth(gpu) / 8
        finally:
            nvml.nvmlShutdown()
    return found


def gpu_count() -> int:
    """The GPUs that NVML finds; 0 where there is no NVML."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return 0
    try:
        return int(nvml.nvmlDeviceGetCount())
    finally:
        nvml.nvmlShutdown()
