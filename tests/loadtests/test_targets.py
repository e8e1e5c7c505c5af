from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import psutil
import pytest

from loadtests.targets import detect as detection
from loadtests.targets.cpu import Cpu
from loadtests.targets.detect import NAMES, detect
from loadtests.targets.hardware import SamplingError
from loadtests.targets.measurement import Measurement, integral, rate
from loadtests.targets.process import ProcessTree
from loadtests.targets.readings import Readings, Series, efficiency
from loadtests.targets.tegra import Tegra
from loadtests.targets.tesla import Tesla


class Scripted:
    """Hardware that gives these figures, the last of them again and again; a sentence instead of figures: it ends."""

    def __init__(self, *script: dict[str, float] | str) -> None:
        self.name = "scripted"
        self.interval_s = 0.001
        self.facts = {"board": "paper"}
        self.notes = ["as written"]
        self.asked = Event()
        self.stopped = False
        self._script = list(script)

    def start(self) -> None:
        self.stopped = False

    def sample(self) -> dict[str, float]:
        if len(self._script) == 1:
            self.asked.set()
        now = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(now, str):
            raise SamplingError(now)
        return now

    def stop(self) -> None:
        self.stopped = True


def measured(hardware: Scripted) -> Readings:
    with Measurement(hardware) as measurement:
        assert hardware.asked.wait(60)
    assert hardware.stopped
    return measurement.readings


@contextmanager
def process(command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that does this, and says so on its standard output when it is about to."""
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        yield shell
        shell.kill()


def test_a_counter_gives_the_energy_and_the_power_between_its_readings() -> None:
    readings = measured(Scripted({"energy_j": 100.0}, {"energy_j": 103.0}, {"energy_j": 107.0}))
    assert readings.energy_j == 7.0
    assert readings.figures["power_w"].max > 0
    assert "energy_j" not in readings.figures
    assert rate(Series((0.0, 2.0, 4.0), (100.0, 103.0, 107.0))) == Series((2.0, 4.0), (1.5, 2.0))


def test_a_sampled_power_is_kept_beside_a_counter() -> None:
    readings = measured(Scripted({"energy_j": 1.0, "power_w": 30.0}, {"energy_j": 3.0, "power_w": 50.0}))
    assert readings.energy_j == 2.0
    assert readings.figures["power_w"].max == 50.0
    assert set(readings.figures["power_w"].values) == {30.0, 50.0}
    assert not any("integrated" in note for note in readings.notes)


def test_power_without_a_counter_is_integrated_and_said_to_be() -> None:
    readings = measured(Scripted({}, {"power_w": 40.0}))
    assert readings.energy_j == pytest.approx(40.0 * readings.duration_s)
    assert any("integrated" in note for note in readings.notes)


def test_integration_is_by_trapezoids_from_the_start_to_the_end() -> None:
    # 1 s at 10 W, a ramp to 30 W in 2 s, 1 s at 30 W.
    assert integral(Series((1.0, 3.0), (10.0, 30.0)), 4.0) == 10.0 + 40.0 + 30.0


def test_hardware_that_stops_telling_has_no_energy_and_says_why() -> None:
    readings = measured(Scripted({"power_w": 40.0, "energy_j": 1.0}, {"power_w": 60.0, "energy_j": 9.0}, "it burnt"))
    assert readings.energy_j is None
    assert readings.figures["power_w"].values == (40.0, 60.0)
    assert {"as written", "it burnt"} < set(readings.notes)


def test_hardware_without_power_has_no_energy() -> None:
    readings = measured(Scripted({"cpu_utilisation_percent": 3.0}))
    assert readings.energy_j is None
    assert readings.notes == ("as written",)


def test_what_goes_wrong_in_a_sample_is_not_swallowed() -> None:
    class Broken(Scripted):
        def sample(self) -> dict[str, float]:
            if self.asked.is_set():
                raise ZeroDivisionError
            self.asked.set()
            return {}

    hardware = Broken({})
    with pytest.raises(ZeroDivisionError):
        measured(hardware)
    assert hardware.stopped


def test_json_has_all_that_is_needed_to_plot() -> None:
    told = json.loads(json.dumps(measured(Scripted({"power_w": 1.0}, {"power_w": 3.0})).as_json(), allow_nan=False))
    assert list(told) == ["target", "hardware", "duration_s", "figures", "energy_j", "service_cpu_s", "notes"]
    assert (told["target"], told["hardware"], told["service_cpu_s"]) == ("scripted", {"board": "paper"}, None)
    power = told["figures"]["power_w"]
    assert set(power) == {"mean", "max", "t_s", "values"}
    assert power["max"] == 3.0
    assert 1.0 < power["mean"] < 3.0
    assert power["t_s"] == sorted(power["t_s"])
    assert len(power["t_s"]) == len(power["values"])


def readings(energy_j: float | None, service_cpu_s: float | None) -> Readings:
    return Readings("cpu", {}, 10.0, {"power_w": Series((0.0, 10.0), (40.0, 60.0))}, energy_j, service_cpu_s, ())


def test_a_short_interval_counts_for_little() -> None:
    assert Series((4.0, 8.0, 8.1), (50.0, 50.0, 131.0)).mean == pytest.approx(51.0)
    assert Series((2.0,), (50.0,)).mean == 50.0


def test_the_mean_power_is_the_energy_over_its_time() -> None:
    assert readings(energy_j=400.0, service_cpu_s=None).mean_w == 40.0
    assert readings(energy_j=None, service_cpu_s=None).mean_w == 60.0
    assert Readings("cpu", {}, 10.0, {}, None, None, ()).mean_w is None


def test_efficiency() -> None:
    found = efficiency(5000, readings(energy_j=400.0, service_cpu_s=15.0))
    assert (found.images_per_s, found.mean_w, found.images_per_j) == (500.0, 40.0, 12.5)
    assert found.service_cpu_us_per_image == 3000.0
    assert found.reason is None


def test_efficiency_says_what_is_not_known() -> None:
    found = efficiency(5000, readings(None, None))
    assert (found.images_per_j, found.service_cpu_us_per_image) == (None, None)
    assert found.images_per_s == 500.0
    assert found.reason == "the energy is not known; the service's processor time is not known"
    assert efficiency(0, readings(400.0, 15.0)).reason == "no image was answered"


BUSY = """
import time
held = b"x" * 100_000_000
while time.process_time() < 0.2:
    pass
print(flush=True)
time.sleep(60)
"""


def test_processor_time_and_memory_of_a_process_and_its_children() -> None:
    with process(f"{shlex.quote(sys.executable)} -c {shlex.quote(BUSY)} & wait") as shell:
        tree = ProcessTree(shell.pid)
        tree.start()
        (child,) = psutil.Process(shell.pid).children()
        found = tree.sample()
        assert found["service_memory_bytes"] >= 100_000_000 + psutil.Process(shell.pid).memory_info().rss
        assert found["service_cpu_s"] >= 0.15  # Counted in hundredths of a second, of user and system each.
        child.kill()
        shell.wait()
        with pytest.raises(SamplingError, match=f"process {shell.pid}"):
            tree.sample()


def test_the_service_is_measured_beside_the_hardware() -> None:
    hardware = Scripted({}, {})
    with process("echo; exec sleep 60") as shell, Measurement(hardware, shell.pid) as measurement:
        assert hardware.asked.wait(60)
    assert measurement.readings.figures["service_memory_bytes"].max > 0
    assert measurement.readings.service_cpu_s is not None
    assert measurement.readings.service_cpu_s >= 0


def test_a_service_that_ended_has_no_processor_time_and_is_named() -> None:
    hardware = Scripted({}, {})
    with process("echo; exec sleep 60") as shell:
        with Measurement(hardware, shell.pid) as measurement:
            shell.kill()
            os.waitid(os.P_PID, shell.pid, os.WEXITED | os.WNOWAIT)  # Ended, and not yet waited for by its parent.
        shell.wait()
        assert measurement.readings.service_cpu_s is None
        assert any(f"process {shell.pid}" in note for note in measurement.readings.notes)
        hardware = Scripted({})
        with pytest.raises(SystemExit, match=f"no process {shell.pid}"), Measurement(hardware, shell.pid):
            pass
        assert hardware.stopped


def test_a_named_target_is_taken() -> None:
    assert [type(detect(name)) for name in NAMES] == [Cpu, Tesla, Tegra]
    with pytest.raises(SystemExit, match="no target 'tpu'; there are cpu, tesla, tegra"):
        detect("tpu")


def test_what_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(detection, "TEGRA_RELEASE", tmp_path / "nv_tegra_release")
    monkeypatch.setattr(detection, "gpu_count", lambda: 0)
    assert isinstance(detect(), Cpu)
    monkeypatch.setattr(detection, "gpu_count", lambda: 1)
    assert isinstance(detect(), Tesla)
    (tmp_path / "nv_tegra_release").touch()
    assert isinstance(detect(), Tegra)
    (tmp_path / "nv_tegra_release").unlink()
    (tmp_path / "tegrastats").touch(0o755)
    assert isinstance(detect(), Tegra)
