# ruff: noqa: N802 (NVML names its functions)
from __future__ import annotations

import ctypes
from typing import Any

import pynvml
import pytest

from loadtests.targets.measurement import Measurement
from loadtests.targets.tesla import FIGURES, Tesla, bandwidths, gpu_count


class Library:
    """libnvidia-ml.so.1 for pynvml, of which all else is real: C functions that fill in what a pointer points to.

    Args:
        errors: what functions return instead, by name.
    """

    def __init__(self, **errors: int) -> None:
        self.errors = errors
        self.open = 0
        self.energy_mj = 5_000_000

    def __getattr__(self, name: str) -> Any:
        function = getattr(type(self), f"_{name}", None)
        if function is None:
            raise AttributeError(name)  # As of a library that is older than the function.
        return lambda *arguments: self.errors.get(name) or function(self, *arguments) or pynvml.NVML_SUCCESS

    def _nvmlInitWithFlags(self, flags: int) -> None:
        self.open += 1

    def _nvmlShutdown(self) -> None:
        self.open -= 1

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = 2

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int | None:
        assert device._obj.__class__ is pynvml.c_nvmlDevice_t
        return None if index.value < 2 else pynvml.NVML_ERROR_INVALID_ARGUMENT

    def _nvmlDeviceGetName(self, gpu: Any, name: Any, length: Any) -> None:
        name.value = b"Tesla T4"

    def _nvmlDeviceGetUUID(self, gpu: Any, uuid: Any, length: Any) -> None:
        uuid.value = b"GPU-3f7b"

    def _nvmlSystemGetDriverVersion(self, version: Any, length: Any) -> None:
        version.value = b"580.95.05"

    def _nvmlSystemGetCudaDriverVersion(self, version: Any) -> None:
        version._obj.value = 12040

    def _nvmlDeviceGetEnforcedPowerLimit(self, gpu: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 70000

    def _nvmlDeviceGetMigMode(self, gpu: Any, current: Any, pending: Any) -> None:
        current._obj.value = pynvml.NVML_DEVICE_MIG_ENABLE

    def _nvmlDeviceGetUtilizationRates(self, gpu: Any, rates: Any) -> None:
        rates._obj.gpu, rates._obj.memory = 93, 41

    def _nvmlDeviceGetMemoryInfo(self, gpu: Any, memory: Any) -> None:
        memory._obj.total, memory._obj.used = 16 << 30, 3 << 30

    def _nvmlDeviceGetClockInfo(self, gpu: Any, clock: Any, mhz: Any) -> None:
        mhz._obj.value = {pynvml.NVML_CLOCK_SM: 1590, pynvml.NVML_CLOCK_MEM: 5000}[clock.value]

    def _nvmlDeviceGetPowerUsage(self, gpu: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = 68250

    def _nvmlDeviceGetTemperature(self, gpu: Any, sensor: Any, degrees: Any) -> None:
        degrees._obj.value = 61

    def _nvmlDeviceGetTotalEnergyConsumption(self, gpu: Any, millijoules: Any) -> None:
        assert isinstance(millijoules._obj, ctypes.c_uint64)
        millijoules._obj.value = self.energy_mj

    def _nvmlDeviceGetMaxPcieLinkGeneration(self, gpu: Any, generation: Any) -> None:
        generation._obj.value = 3

    def _nvmlDeviceGetMaxPcieLinkWidth(self, gpu: Any, lanes: Any) -> None:
        lanes._obj.value = 16

    def _nvmlDeviceGetMaxClockInfo(self, gpu: Any, clock: Any, mhz: Any) -> None:
        mhz._obj.value = {pynvml.NVML_CLOCK_MEM: 5001}[clock.value]

    def _nvmlDeviceGetMemoryBusWidth(self, gpu: Any, bits: Any) -> None:
        bits._obj.value = 256


NO_MIG = {"nvmlDeviceGetMigMode": pynvml.NVML_ERROR_NOT_SUPPORTED}


def install(monkeypatch: pytest.MonkeyPatch, **errors: int) -> Library:
    library = Library(**errors)
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return library


def test_all_figures_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(monkeypatch, **NO_MIG)
    with Measurement(Tesla(1)) as measurement:
        library.energy_mj += 12_500
    readings = measurement.readings
    assert readings.energy_j == 12.5
    assert {name: series.max for name, series in readings.figures.items()} == {
        "gpu_utilisation_percent": 93,
        "memory_used_bytes": 3 << 30,
        "sm_clock_mhz": 1590,
        "memory_clock_mhz": 5000,
        "power_w": 68.25,
        "gpu_temperature_c": 61,
    }
    assert readings.hardware == {
        "index": "1",
        "device": "Tesla T4",
        "uuid": "GPU-3f7b",
        "memory": "17,179,869,184 bytes",
        "power limit": "70 W",
        "driver": "580.95.05",
        "CUDA": "12.4",
    }
    assert readings.notes == ("power and energy are of the GPU's board, not of the machine around it",)
    assert library.open == 0


def test_without_a_counter_the_energy_is_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, nvmlDeviceGetTotalEnergyConsumption=pynvml.NVML_ERROR_NOT_SUPPORTED, **NO_MIG)
    with Measurement(Tesla()) as measurement:
        pass
    readings = measurement.readings
    assert readings.energy_j == pytest.approx(68.25 * readings.duration_s)
    assert "energy_j: NVML says Not Supported" in readings.notes
    assert any("integrated" in note for note in readings.notes)


def test_mig_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, nvmlDeviceGetUtilizationRates=pynvml.NVML_ERROR_NOT_SUPPORTED)
    with Measurement(Tesla()) as measurement:
        pass
    assert "gpu_utilisation_percent" not in measurement.readings.figures
    assert "gpu_utilisation_percent: NVML says Not Supported" in measurement.readings.notes
    assert any(note.startswith("MIG is on") for note in measurement.readings.notes)


def test_a_function_that_the_driver_lacks_is_one_figure_less(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, **NO_MIG)
    monkeypatch.delattr(Library, "_nvmlDeviceGetTemperature")
    tesla = Tesla()
    tesla.start()
    assert set(tesla.sample()) == set(FIGURES) - {"gpu_temperature_c"}
    assert "gpu_temperature_c: NVML says Function Not Found" in tesla.notes
    tesla.stop()


def test_a_gpu_that_is_lost_ends_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(monkeypatch, **NO_MIG)
    with Measurement(Tesla()) as measurement:
        library.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_GPU_IS_LOST
        library.errors["nvmlShutdown"] = pynvml.NVML_ERROR_GPU_IS_LOST
    assert measurement.readings.energy_j is None
    assert "the GPU gave no figures any more: NVML says GPU is lost" in measurement.readings.notes


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(monkeypatch)
    with pytest.raises(SystemExit, match="no GPU 2: NVML finds 2"):
        Tesla(2).start()
    assert library.open == 0
    assert gpu_count() == 2
    assert library.open == 0


def test_what_the_link_and_the_memory_can_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(monkeypatch)
    assert bandwidths(0) == {"link": 16 * 0.985e9, "memory": 320.064e9}
    library.errors["nvmlDeviceGetMemoryBusWidth"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert bandwidths(0) == {"link": 16 * 0.985e9}
    library.errors["nvmlInitWithFlags"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert bandwidths(0) == {}
    assert library.open == 0


def test_without_a_driver_the_real_library_says_what_is_missing() -> None:
    if gpu_count():
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(SystemExit, match=r"no tesla target: NVML says (NVML Shared|Driver Not Loaded)"):
        Tesla().start()


@pytest.mark.system
def test_a_real_gpu() -> None:
    if not gpu_count():
        pytest.skip("NVML finds no GPU")
    with Measurement(Tesla()) as measurement:
        pass
    assert "device" in measurement.readings.hardware
    assert measurement.readings.figures["memory_used_bytes"].max > 0
