"""A GPU's load, memory, power, energy and temperature, by NVML, under Triton's names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

PCI_BUS_ID_LENGTH = 32

log = logging.getLogger("fovea")

FIGURES: dict[str, tuple[str, str, Callable[[Any, Any], float]]] = {
    "nv_gpu_utilization": (
        "gauge",
        "Share of the time in which the GPU was busy, 0 to 1.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    "nv_gpu_memory_total_bytes": (
        "gauge",
        "The GPU's memory.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    "nv_gpu_memory_used_bytes": (
        "gauge",
        "The GPU's memory that is in use.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    "nv_gpu_power_usage": ("gauge", "Watts.", lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3),
    "nv_gpu_power_limit": ("gauge", "Watts.", lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3),
    # A counter, under a name without `_total`.
    "nv_energy_consumption": (
        "unknown",
        "Joules since the driver was loaded.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    ),
    "fovea_gpu_temperature_celsius": (
        "gauge",
        "The GPU's temperature.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
}
"""Type, meaning, and how NVML is asked: https://docs.nvidia.com/deploy/nvml-api"""


class GpuMetrics(Collector):
    """Collector of one GPU, which is asked when its metrics are. What it cannot tell is left out.

    Args:
        nvml: the module pynvml.
        pci_bus_id: the device's, as CUDA tells it: NVML numbers devices otherwise.

    Raises:
        nvml.NVMLError: NVML, or the device, cannot be had.
    """

    def __init__(self, nvml: Any, pci_bus_id: bytes) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpu = nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        self._labels = {"gpu_uuid": nvml.nvmlDeviceGetUUID(self._gpu)}

    def collect(self) -> Iterable[Metric]:
        for name, (kind, text, read) in FIGURES.items():
            metric = Metric(name, text, kind)
            try:
                metric.add_sample(name, self._labels, read(self._nvml, self._gpu))
            except self._nvml.NVMLError:
                continue
            yield metric


def gpu_metrics(device_id: int) -> GpuMetrics | None:
    """Of a CUDA device; None, and a line in the log, where there can be none."""
    try:
        import pynvml
        from cuda.bindings import runtime
    except ImportError as error:
        log.warning("there are no metrics of the GPU: %s; what they need is in the extra 'gpu'", error)
        return None
    status, pci_bus_id = runtime.cudaDeviceGetPCIBusId(PCI_BUS_ID_LENGTH, device_id)
    if status:
        log.warning("there are no metrics of the GPU: cudaDeviceGetPCIBusId says %s", status)
        return None
    try:
        return GpuMetrics(pynvml, pci_bus_id.partition(b"\0")[0])
    except pynvml.NVMLError as error:
        log.warning("there are no metrics of the GPU: NVML says %s", error)
        return None
