"""Locust with its real users, against the real service. Importing locust changes a process: it runs in others."""

from __future__ import annotations

import asyncio
import csv
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests import __main__
from loadtests.run import LOCUSTFILE, Load, Run, run_locust
from loadtests.target import Target
from loadtests.users import USERS
from tests.repositories import write_model
from tests.service.launch import RunningService, running, until

pytestmark = pytest.mark.system

ONE_INSTANCE = "dynamic_batching { } instance_group { count: 1 }"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningService]:
    write_model(tmp_path / "models")
    with running(tmp_path / "models") as service:
        yield service


def target(service: RunningService) -> Target:
    return Target(service.http, service.grpc, service.metrics)


def run(service: RunningService, folder: Path, user: str, load: Load) -> Run:
    return run_locust(USERS[user], target(service), load, folder, "run")


@pytest.mark.parametrize("rate_per_s", [None, 40.0])
@pytest.mark.parametrize("user", USERS)
def test_every_user_is_answered(
    service: RunningService, tmp_path: Path, user: str, rate_per_s: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run(service, tmp_path, user, Load(2, 2, rate_per_s=rate_per_s))
    told = capfd.readouterr().out
    counts = [int(count.replace(",", "")) for count in re.findall(r"(?m)^  \d s: ([\d,]+) requests, 0 failed$", told)]
    assert counts == sorted(counts)
    assert 0 < counts[-1] < found.whole.requests
    assert found.errors == ()
    assert found.whole.requests > 10
    assert found.whole.failures == 0
    assert (found.late_p99_ms is not None) == (rate_per_s is not None)
    if rate_per_s:
        assert found.whole.requests < 160


@pytest.mark.parametrize("user", ["http", "grpc", "grpc-stream"])
def test_failures_are_counted_with_the_reason(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.jpg").write_bytes(b"not an image")
    monkeypatch.setenv("FOVEA_LOADTEST_IMAGES", str(tmp_path / "images"))
    found = run(service, tmp_path, user, Load(2, 1))
    assert found.whole.requests == found.whole.failures > 0
    (error,) = found.errors
    assert re.match(rf"{found.whole.failures} × (400|INVALID_ARGUMENT): \w+", error)


@pytest.mark.parametrize("rate_per_s", [None, 60.0])
def test_a_shape_has_figures_for_each_stage(
    service: RunningService, tmp_path: Path, capfd: pytest.CaptureFixture[str], rate_per_s: float | None
) -> None:
    found = run(service, tmp_path, "http", Load(8, 6, "spike", rate_per_s))
    begun = [line.strip() for line in capfd.readouterr().out.splitlines() if line.strip() in found.stages]
    assert begun == list(found.stages)
    assert found.whole.requests == sum(figures.requests for figures in found.stages.values())
    before, spike, after = found.stages.values()
    if rate_per_s:
        assert list(found.stages) == ["before: 7.5 requests/s", "spike: 60 requests/s", "after: 7.5 requests/s"]
        assert 60 < spike.requests < 180
        assert max(before.requests, after.requests) < 45
    else:
        assert list(found.stages) == ["before: 1 user", "spike: 8 users", "after: 1 user"]
    assert min(figures.requests - figures.failures for figures in found.stages.values()) > 0


async def test_an_open_load_keeps_coming_while_the_service_stands_still(
    service: RunningService, tmp_path: Path
) -> None:
    running = asyncio.to_thread(run, service, tmp_path, "http", Load(4, 4, rate_per_s=100.0))
    task = asyncio.create_task(running)
    await until(lambda: service.metric("fovea_requests_total") > 30)
    service.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5)
    service.process.send_signal(signal.SIGCONT)
    found = await task
    # 4 users that wait for their answers would have seen it 4 times; here it is what came in more than a second.
    assert found.whole.requests > 250
    assert found.whole.failures == 0
    assert found.whole.p95_ms
    assert found.whole.p95_ms > 500


@pytest.mark.parametrize("rate_per_s", [None, 100.0])
async def test_what_is_never_answered_is_counted(
    service: RunningService, tmp_path: Path, rate_per_s: float | None
) -> None:
    task = asyncio.create_task(asyncio.to_thread(run, service, tmp_path, "http", Load(4, 2, rate_per_s=rate_per_s)))
    await until(lambda: service.metric("fovea_requests_total") > 10)
    service.process.send_signal(signal.SIGSTOP)
    await until((tmp_path / "run.json").exists)
    service.process.send_signal(signal.SIGCONT)
    found = await task
    assert found.whole.failures >= 4
    assert found.errors == (f"{found.whole.failures} × not answered before the end",)


def test_an_overload_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models", slow_rounds=20, max_batch_size=1, extra=ONE_INSTANCE)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    with running(tmp_path / "models", max_queue_size=64) as service:
        addresses = ["--target", service.http, "--grpc", service.grpc, "--metrics", service.metrics]
        overload = ["--user", "grpc", "--users", "8", "--shape", "overload", "--duration-s", "9"]
        assert __main__.main([*addresses, *overload]) == 0
    output = capsys.readouterr().out
    assert "| gRPC-closed |" in output
    assert "| gRPC, overload: " in output
    assert "× UNAVAILABLE: " in output
    assert re.search(r"- gRPC: [\d,]+ requests were refused in “overload: .*”: p50 [\d.]+ ms, p99 [\d.]+ ms", output)


def test_workers_share_the_load(service: RunningService, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    locust = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)]
    workers = [subprocess.Popen([*locust, "--worker", "--master-port", port]) for _ in range(2)]
    master = [*locust, "--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    master += ["--expect-workers", "2", "--host", service.grpc, "--users", "4", "--spawn-rate", "4"]
    master += ["--run-time", "6s", "--stop-timeout", "10", "--shape", "spike", "--rate-per-user", "15"]
    try:
        subprocess.run([*master, "--csv", str(tmp_path / "run"), "GrpcUser"], check=True, timeout=100)
        assert [worker.wait(30) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    with (tmp_path / "run_stats.csv").open(newline="") as file:
        counts = {row["Name"]: int(row["Request Count"]) for row in csv.DictReader(file)}
    assert {"before: 7.5 requests/s", "spike: 60 requests/s", "after: 7.5 requests/s"} < set(counts)
    assert 60 < counts["spike: 60 requests/s"] < 180
    assert (tmp_path / "run_failures.csv").read_text().count("\n") == 1
