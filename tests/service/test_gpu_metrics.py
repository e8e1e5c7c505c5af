# ruff: noqa: N802 (NVML names its functions)
"""A GPU's metrics, by the real pynvml, over a stand-in for NVIDIA's library."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.gpu_metrics import FIGURES, GpuMetrics, gpu_metrics


class Library:
    """libnvidia-ml.so.1: C functions that fill in what a pointer points to.

    Args:
        errors: what functions return instead, by name.
    """

    def __init__(self, **errors: int) -> None:
        self.errors = errors

    def __getattr__(self, name: str) -> Any:
        function = getattr(type(self), f"_{name}", None)
        if function is None:
            raise AttributeError(name)  # As of a library that is older than the function.
        return lambda *arguments: self.errors.get(name) or function(self, *arguments) or pynvml.NVML_SUCCESS

    def _nvmlInitWithFlags(self, flags: int) -> None:
        """It is there."""

    def _nvmlDeviceGetHandleByPciBusId_v2(self, bus_id: Any, device: Any) -> int | None:
        return None if bus_id.value == b"0000:65:00.0" else pynvml.NVML_ERROR_NOT_FOUND

    def _nvmlDeviceGetUUID(self, gpu: Any, uuid: Any, length: Any) -> None:
        uuid.value = b"GPU-3f7b"

    def _nvmlDeviceGetUtilizationRates(self, gpu: Any, rates: Any) -> None:
        rates._obj.gpu = 45

    def _nvmlDeviceGetMemoryInfo(self, gpu: Any, memory: Any) -> None:
        memory._obj.total, memory._obj.used = 16 << 30, 3 << 30

    def _nvmlDeviceGetPowerUsage(self, gpu: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 61_500

    def _nvmlDeviceGetEnforcedPowerLimit(self, gpu: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 70_000

    def _nvmlDeviceGetTotalEnergyConsumption(self, gpu: Any, millijoules: Any) -> None:
        millijoules._obj.value = 5_000_250

    def _nvmlDeviceGetTemperature(self, gpu: Any, sensor: Any, degrees: Any) -> None:
        degrees._obj.value = 63


def use(monkeypatch: pytest.MonkeyPatch, library: Library) -> CollectorRegistry:
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    registry = CollectorRegistry()
    registry.register(GpuMetrics(pynvml, b"0000:65:00.0"))
    return registry


def test_its_figures_under_tritons_names(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = use(monkeypatch, Library())
    found = {name: registry.get_sample_value(name, {"gpu_uuid": "GPU-3f7b"}) for name in FIGURES}
    assert found == {
        "nv_gpu_utilization": 0.45,
        "nv_gpu_memory_total_bytes": 16 << 30,
        "nv_gpu_memory_used_bytes": 3 << 30,
        "nv_gpu_power_usage": 61.5,
        "nv_gpu_power_limit": 70.0,
        "nv_energy_consumption": 5000.25,
        "fovea_gpu_temperature_celsius": 63,
    }
    assert b'nv_energy_consumption{gpu_uuid="GPU-3f7b"} 5000.25' in generate_latest(registry)


def test_what_a_gpu_cannot_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(nvmlDeviceGetTotalEnergyConsumption=pynvml.NVML_ERROR_NOT_SUPPORTED)
    page = generate_latest(use(monkeypatch, library))
    assert b"nv_energy_consumption" not in page
    assert b"nv_gpu_power_usage" in page
    library.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_GPU_IS_LOST
    assert b"nv_gpu_power_usage" not in generate_latest(use(monkeypatch, library))


def test_without_a_gpu_there_are_none_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    assert gpu_metrics(0) is None
    assert "there are no metrics of the GPU" in caplog.text


@pytest.mark.parametrize(("status", "found"), [(0, True), (100, False)])
def test_the_device_is_the_one_that_cuda_means(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, found: bool
) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", Library())
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    class Runtime:
        def cudaDeviceGetPCIBusId(self, length: int, device: int) -> tuple[int, bytes | None]:
            assert device == 1
            return status, None if status else b"0000:65:00.0".ljust(length, b"\0")

    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = Runtime()
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert (gpu_metrics(1) is not None) is found
    assert ("cudaDeviceGetPCIBusId says 100" in caplog.text) is not found
