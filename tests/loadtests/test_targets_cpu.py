from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from loadtests.targets.cpu import Cpu
from loadtests.targets.measurement import Measurement

RANGE_UJ = 262_143_328_850


def zone(powercap: Path, folder: str, name: str, energy_uj: int) -> Path:
    """A RAPL counter as the kernel shows it; its file to write to."""
    (powercap / folder).mkdir(parents=True)
    (powercap / folder / "name").write_text(f"{name}\n")
    (powercap / folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (powercap / folder / "energy_uj").write_text(f"{energy_uj}\n")
    return powercap / folder / "energy_uj"


class Times(NamedTuple):
    """Of the cores, as psutil tells them; the guest's are among the user's."""

    user: float
    idle: float
    iowait: float
    guest: float


def test_the_cores_utilisation_is_the_busy_share_since_the_sample_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([Times(10, 50, 0, 5), Times(10, 50, 0, 5), Times(13, 50.5, 0.5, 8), Times(13, 51.5, 0.5, 8)])
    monkeypatch.setattr("psutil.cpu_times", lambda: next(told))
    cpu = Cpu(powercap=tmp_path)
    cpu.start()
    assert cpu.sample() == {}  # The kernel counts in hundredths of a second.
    assert cpu.sample() == {"cpu_utilisation_percent": 75.0}
    assert cpu.sample() == {"cpu_utilisation_percent": 0.0}
    assert "cores" in cpu.facts["machine"]


def test_energy_is_of_packages_and_memory_over_the_counters_end(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 7_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    zone(tmp_path, "intel-rapl:2", "psys", 5)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5)
    cpu = Cpu(powercap=tmp_path)
    with Measurement(cpu) as measurement:
        first.write_text("2000000\n")
        memory.write_text("7250000\n")
        second.write_text("500000\n")
    assert measurement.readings.energy_j == pytest.approx(3.0 + 0.25 + 0.5)
    assert measurement.readings.figures["power_w"].max > 0
    assert "the energy is RAPL's of package-0, dram, package-1" in measurement.readings.notes


def test_a_counter_may_start_again_more_than_once(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    cpu = Cpu(powercap=tmp_path)
    cpu.start()
    for energy_uj in (RANGE_UJ - 1, 10, RANGE_UJ - 1, 0):
        file.write_text(str(energy_uj))
        energy_j = cpu.sample()["energy_j"]
    assert energy_j == pytest.approx(2 * RANGE_UJ / 1e6)


def test_without_counters_the_energy_is_not_known(tmp_path: Path) -> None:
    with Measurement(Cpu(powercap=tmp_path / "powercap")) as measurement:
        pass
    assert measurement.readings.energy_j is None
    assert any("no RAPL counter" in note for note in measurement.readings.notes)


def test_counters_for_root_only_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read_text = Path.read_text

    def denied(path: Path) -> str:
        if path == file:  # The tests may run as root, whom no mode of a file keeps out.
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", denied)
    with Measurement(Cpu(powercap=tmp_path)) as measurement:
        pass
    assert measurement.readings.energy_j is None
    (note,) = (note for note in measurement.readings.notes if "not known" in note)
    assert f"{file}: Permission denied" in note
