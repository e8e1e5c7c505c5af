from __future__ import annotations

import time
from pathlib import Path

import pytest

from loadtests.targets import tegra
from loadtests.targets.hardware import SamplingError
from loadtests.targets.measurement import Measurement
from loadtests.targets.tegra import Tegra, counted_rails, parse, read_rails

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> list[str]:
    """What a board printed, without the header that names it."""
    return [line for line in (RECORDED / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("name", "line", "memory_mb", "cpu", "gpu", "gpu_mhz", "gpu_c", "tj_c", "power_w"),
    [
        ("tx2", 0, 1685, 0, 0, 140, 39, None, 1.931),
        ("tx2", 1, 1685, 7 / 6, 0, 140, 39, None, 1.776),
        ("tx2_user", 0, 2020, 10, 0, None, 41, None, 3.14),
        ("nano_jetpack_4", 0, 1923, 4.5, 0, 76, 40, None, 1.75),
        ("xavier_nx_jetpack_4", 0, 5246, 251 / 6, 0, 1109, 31.5, None, 6.14),
        ("xavier_nx_jetpack_5", 0, 3168, 102 / 6, 0, 114, 45.5, None, 2.763),
        ("agx_xavier_jetpack_4", 0, 14700, 0, 0, None, 30.5, None, 7.632),
        ("orin_nano_jetpack_6", 0, 1343, 0, 0, 305, 49.625, 49.312, 5.251),
        ("orin_nano_jetpack_6", 1, 6712, 7, 99, 612, 58.625, 58.312, 16.321),
        ("agx_orin", 0, 4321, 0, 0, 0, None, 44.343, 6.755),
        ("agx_orin", 1, 13983, 1190 / 12, 14, 407, 69.125, 77.281, 22.43),
        ("agx_orin_jetpack_6", 0, 18207, 171 / 12, 0, 0, None, 52.562, 8.726),
        ("agx_thor", 0, 8353, 172 / 3, 87, 1574, 56.937, 66.625, 124.486),
        ("agx_thor", 1, 3429, 2.5, None, 1574, 51.218, 51.218, 28.906),
    ],
)  # fmt: skip
def test_lines_of_every_board(
    name: str, line: int, memory_mb: int, cpu: float, gpu: float | None, gpu_mhz: float | None, gpu_c: float | None,
    tj_c: float | None, power_w: float,
) -> None:  # fmt: skip
    figures = parse(recorded(f"tegrastats_{name}")[line])
    assert figures["memory_used_bytes"] == memory_mb << 20
    assert figures["cpu_utilisation_percent"] == pytest.approx(cpu)
    assert figures.get("gpu_utilisation_percent") == gpu
    assert figures.get("gpu_clock_mhz") == gpu_mhz
    assert figures.get("gpu_temperature_c") == gpu_c
    assert figures.get("tj_temperature_c") == tj_c
    assert figures["power_w"] == pytest.approx(power_w)


@pytest.mark.parametrize(
    "load", ["GR3D_FREQ 99%", "GR3D_FREQ 99%@1300", "GR3D_FREQ 99%@[1300]", "GR3D_FREQ 99%@[1300,0]"]
)
def test_every_form_of_the_gpus_load(load: str) -> None:
    figures = parse(f"EMC_FREQ 7% {load} VIC_FREQ 115")
    assert figures.pop("gpu_clock_mhz", 1300) == 1300
    assert figures == {"gpu_utilisation_percent": 99}


def test_what_is_no_line_of_tegrastats_has_no_figures() -> None:
    assert parse("tegrastats: cannot open /sys/kernel/debug: Permission denied") == {}


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("tx2_user", ["VDD_IN"]),
        ("nano_jetpack_4", ["POM_5V_IN"]),
        ("agx_xavier_jetpack_4", ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]),
        ("agx_orin", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]),
        ("agx_thor", ["VIN"]),
    ],
)
def test_no_rail_is_counted_twice(name: str, counted: list[str]) -> None:
    assert counted_rails(read_rails(recorded(f"tegrastats_{name}")[0])) == counted


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Orin Nano without its programs; where they go, and the files that tell the board."""
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    (tmp_path / "lines").write_text("\n".join([*recorded("tegrastats_orin_nano_jetpack_6"), ""]))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def program(board: Path, name: str, script: str) -> None:
    (board / name).write_text(f"#!/bin/sh\ncd {board}\n{script}\n")
    (board / name).chmod(0o755)


def test_a_sum_of_rails_is_said_to_be_one(board: Path) -> None:
    program(board, "tegrastats", f"cat {RECORDED}/tegrastats_agx_orin.txt; exec sleep 60")
    hardware = Tegra(60.0, board)
    hardware.interval_s = 0.01
    hardware.start()
    next_figures(hardware)
    hardware.stop()
    rails = "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"
    assert f"power is the sum of the rails {rails}, as no rail here feeds them all" in hardware.notes


def next_figures(hardware: Tegra) -> dict[str, float]:
    while not (figures := hardware.sample()):
        time.sleep(hardware.interval_s)
    return figures


def test_a_run_on_a_board(board: Path) -> None:
    program(board, "nvpmodel", f'[ "$*" = -q ] && cat {RECORDED}/nvpmodel_orin_nano.txt')
    program(board, "tegrastats", "echo $* >arguments; cat lines; echo $$ >pid; exec sleep 60")
    with Measurement(Tegra(0.5, board)) as measurement:
        while not (board / "pid").exists():
            time.sleep(0.01)
    readings = measurement.readings
    assert (board / "arguments").read_text() == "--interval 500\n"
    assert not Path(f"/proc/{(board / 'pid').read_text().strip()}").exists()
    assert readings.hardware == {
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "release": "R36 (release), REVISION: 4.3, GCID: 38968081",
        "power mode": "MAXN_SUPER (2)",
        "memory": "7,620 MB",
    }
    assert readings.figures["power_w"].max == 16.321
    assert readings.figures["power_vdd_cpu_gpu_cv_w"].max == 7.104
    assert readings.energy_j is not None
    assert readings.energy_j > 0
    assert readings.notes == (
        "power is that of the rail VDD_IN, which feeds the others",
        "the energy is the power integrated over time, as nothing counts it",
    )


def test_lines_come_at_the_interval_and_in_pieces(board: Path) -> None:
    program(board, "tegrastats", "head -c 100 lines; sleep 0.05; tail -c +101 lines; exec sleep 60")
    hardware = Tegra(60.0, board)
    hardware.interval_s = 0.01
    hardware.start()
    assert next_figures(hardware)["power_w"] == 16.321
    assert hardware.sample() == {}
    hardware.stop()


def test_tegrastats_that_ends_is_said_and_leaves_no_energy(board: Path) -> None:
    program(board, "tegrastats", "cat lines; exit 3")
    hardware = Tegra(60.0, board)
    hardware.interval_s = 0.01
    with Measurement(hardware) as measurement:
        while hardware._process.poll() is None:
            time.sleep(0.01)
        while not measurement._hardware.ended:
            time.sleep(0.01)
    assert measurement.readings.energy_j is None
    assert measurement.readings.figures["power_w"].max == 16.321
    assert "tegrastats ended during the run, with exit code 3" in measurement.readings.notes


def test_tegrastats_that_says_nothing_is_not_waited_for(board: Path) -> None:
    program(board, "tegrastats", "exec sleep 60")
    hardware = Tegra(0.01, board)
    hardware.start()
    with pytest.raises(SamplingError, match=r"told nothing for 0\.05 s"):
        next_figures(hardware)
    hardware.stop()
    assert any("no power rails" in note for note in hardware.notes)
    assert any("utilisation is not known" in note for note in hardware.notes)


def test_tegrastats_that_does_not_end_is_killed(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tegra, "STOP_TIMEOUT_S", 0.1)
    program(board, "nvpmodel", "exit 1")
    program(board, "tegrastats", "trap '' TERM; cat lines; while :; do sleep 0.2; done")
    hardware = Tegra(60.0, board)
    hardware.interval_s = 0.01
    hardware.start()
    next_figures(hardware)
    hardware.stop()
    assert hardware._process.returncode == -9


def test_a_power_mode_that_cannot_be_read_is_a_note(board: Path) -> None:
    program(board, "tegrastats", "exec sleep 60")
    hardware = Tegra(1.0, board)
    hardware.start()
    hardware.stop()
    assert any("power mode is not known" in note and "nvpmodel" in note for note in hardware.notes)
    program(board, "nvpmodel", "echo 'NVPM ERROR: failed to open' >&2; exit 1")
    hardware.start()
    hardware.stop()
    assert any("NVPM ERROR: failed to open" in note for note in hardware.notes)


@pytest.mark.parametrize(
    ("name", "mode"), [("nano", "5W (1)"), ("agx_xavier", "MODE_30W_4CORE (5)"), ("orin_nano", "MAXN_SUPER (2)")]
)
def test_power_modes(board: Path, name: str, mode: str) -> None:
    program(board, "tegrastats", "exec sleep 60")
    program(board, "nvpmodel", f"cat {RECORDED}/nvpmodel_{name}.txt")
    hardware = Tegra(1.0, board)
    hardware.start()
    hardware.stop()
    assert hardware.facts["power mode"] == mode


def test_a_machine_without_tegrastats_is_no_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no tegra target: tegrastats: No such file"):
        Tegra().start()
