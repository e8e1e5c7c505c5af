"""Triton's own load generator, as it is, against Fovea."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from tests.perf_analyzer import install
from tests.repositories import write_model
from tests.service.launch import running

CONCURRENCIES = ["1", "4"]
SERVER_SIDE = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_sweep_has_what_the_server_says_of_its_time(tmp_path: Path, protocol: str) -> None:
    if reason := install.missing():
        pytest.skip(reason)
    write_model(tmp_path / "models", slow_rounds=2)
    table = tmp_path / "sweep.csv"
    with running(tmp_path / "models") as service:
        address = service.http.removeprefix("http://") if protocol == "http" else service.grpc
        command = [
            str(install.BINARY),
            *("-m", "colours", "-u", address, "-i", protocol, "-f", str(table)),
            # Short windows, however far apart their figures: this is about what is in the table.
            *("--concurrency-range", "1:4:3", "-p", "1000", "-r", "10", "-s", "500"),
        ]
        result = subprocess.run(
            command, env=install.environment(), capture_output=True, text=True, timeout=240, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    with table.open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["Concurrency"]))
    assert [row["Concurrency"] for row in rows] == CONCURRENCIES
    for row in rows:
        assert float(row["Inferences/Second"]) > 0
        assert all(row[column].isdecimal() for column in SERVER_SIDE)
        assert int(row["Server Compute Infer"]) > 0
