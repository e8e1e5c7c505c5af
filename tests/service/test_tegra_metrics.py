"""A board's figures, from what tegrastats printed on real ones."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.app import _register_accelerator
from service.tegra_metrics import FIGURES, TegraMetrics, parse
from service.telemetry import Telemetry
from service.tracing import Tracing
from tests.service.launch import ROOT, until

RECORDED = ROOT / "tests" / "loadtests" / "recorded"
ORIN_NANO = RECORDED / "tegrastats_orin_nano_jetpack_6.txt"


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("file", sorted(RECORDED.glob("tegrastats_*.txt")), ids=lambda file: file.stem)
def test_every_board_tells_its_memory_and_temperatures(file: Path) -> None:
    assert lines(file)
    for line in lines(file):
        figures = parse(line)
        assert figures.keys() <= FIGURES.keys()
        (total,), (used,) = (figures[f"fovea_tegra_memory_{which}_bytes"].values() for which in ("total", "used"))
        assert 2**31 < total < 2**38
        assert 0 < used < total
        sensors = figures["fovea_tegra_temperature_celsius"]
        assert sensors
        assert all(0 < degrees <= 100 for degrees in sensors.values()), sensors
        assert all(0 <= watts < 200 for watts in figures.get("fovea_tegra_power_watts", {}).values())


@pytest.mark.parametrize(
    ("board", "load", "rails", "sensors"),
    [
        (
            "orin_nano_jetpack_6", 0.0,
            {"VDD_IN": 5.251, "VDD_CPU_GPU_CV": 0.512, "VDD_SOC": 2.72},
            {"cpu": 48.562, "gpu": 49.625, "tj": 49.312},
        ),
        ("agx_thor", 0.87, {"VIN": 124.486, "VDD_GPU": 37.939}, {"gpu": 56.937, "tj": 66.625}),
        ("agx_xavier_jetpack_4", 0.0, {"GPU": 0.463, "SYS5V": 3.306}, {"GPU": 30.5, "thermal": 30.8}),
        ("nano_jetpack_4", 0.0, {"POM_5V_IN": 1.75, "POM_5V_GPU": 0.0}, {"GPU": 40.0}),
        ("tx2", 0.0, {"VDD_IN": 1.931, "VDD_DDR": 0.326}, {"BCPU": 41.0}),
        ("xavier_nx_jetpack_5", 0.0, {"VDD_IN": 2.763}, {"GPU": 45.5}),
    ],
)  # fmt: skip
def test_the_figures_of_a_board(board: str, load: float, rails: dict[str, float], sensors: dict[str, float]) -> None:
    figures = parse(lines(RECORDED / f"tegrastats_{board}.txt")[0])
    assert figures["fovea_tegra_gpu_utilization"] == {"": load}
    assert rails.items() <= figures["fovea_tegra_power_watts"].items()
    assert sensors.items() <= figures["fovea_tegra_temperature_celsius"].items()


def test_what_is_switched_off_or_not_connected_is_left_out() -> None:
    figures = parse(lines(RECORDED / "tegrastats_agx_orin.txt")[0])
    assert "GPU" not in figures["fovea_tegra_temperature_celsius"]
    assert "NC" not in figures["fovea_tegra_power_watts"]


def test_a_load_that_is_not_told_is_left_out() -> None:
    assert "fovea_tegra_gpu_utilization" not in parse(lines(RECORDED / "tegrastats_agx_thor.txt")[1])


@pytest.mark.parametrize("line", ["", "tegrastats: command line option unknown", "RAM", "GR3D_FREQ @[1574]"])
def test_what_is_no_such_line_has_no_figures(line: str) -> None:
    assert parse(line) == {}


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def is_running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


async def test_the_last_line_is_told_while_tegrastats_runs(tmp_path: Path) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f'#!/bin/sh\n[ "$1" = --interval ] && cat {ORIN_NANO} && exec sleep 60\n')
    program.chmod(0o755)
    board, registry = TegraMetrics(), CollectorRegistry()
    registry.register(board)
    following = asyncio.create_task(board.follow(str(program)))
    await until(lambda: sample(registry, "fovea_tegra_gpu_utilization") == 0.99)
    assert sample(registry, "fovea_tegra_memory_used_bytes") == 6712 * 2**20
    assert sample(registry, "fovea_tegra_temperature_celsius", sensor="gpu") == 58.625
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert sample(registry, "fovea_tegra_gpu_utilization") is None


async def test_one_that_ends_or_is_not_there_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await TegraMetrics().follow("true")
    await TegraMetrics().follow(str(tmp_path / "nowhere"))
    assert "true has ended" in caplog.text
    assert "nowhere: No such file or directory" in caplog.text


async def test_a_service_on_a_board_follows_it_until_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\ncat {ORIN_NANO}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    telemetry = Telemetry(Tracing(None))
    async with AsyncExitStack() as stack:
        _register_accelerator(0, telemetry, stack)
        await until(lambda: sample(telemetry.registry, "fovea_tegra_gpu_utilization") == 0.99)
        process = int((tmp_path / "pid").read_text())
        assert is_running(process)
    assert not is_running(process)
