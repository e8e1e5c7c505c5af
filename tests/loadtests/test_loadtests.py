from __future__ import annotations

from pathlib import Path

import pytest

from loadtests import __main__
from loadtests.fetch import fetch
from loadtests.run import Run
from loadtests.target import Target, started_service
from tests.repositories import write_model

ELSEWHERE = ["--target", "http://127.0.0.1:1", "--grpc", "127.0.0.1:2", "--metrics", "http://127.0.0.1:3/metrics"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results go; a tiny model is served."""
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_both_protocols_end_to_end(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--users", "4", "--duration-s", "1"]) == 0

    (folder,) = results.iterdir()
    summary = (folder / "summary.md").read_text()
    assert summary in capsys.readouterr().out
    assert "colours version 1 (CPUExecutionProvider, " in summary
    for protocol in ("HTTP", "gRPC"):
        for ending in ("_stats.csv", "_failures.csv", "_stats_history.csv", ".html", ".json"):
            assert (folder / f"{protocol}{ending}").stat().st_size > 0
        (row,) = (line for line in summary.splitlines() if line.startswith(f"| {protocol} "))
        _, _, requests, *times, failures, batch_size, queue_ms, _ = (cell.strip() for cell in row.split("|"))
        assert int(requests.replace(",", "")) > 0
        assert all(float(time.replace(",", "")) > 0 for time in times)
        assert failures == "0"
        assert 1 <= float(batch_size) <= 4
        assert float(queue_ms) > 0


def test_the_service_is_stopped_on_ctrl_c(results: Path) -> None:
    with pytest.raises(KeyboardInterrupt), started_service() as target:
        raise KeyboardInterrupt
    with pytest.raises(SystemExit, match="refused"):
        fetch(target.http)


def test_a_service_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="did not start"), started_service():
        pass


@pytest.mark.parametrize(("requests", "failures", "exit_code"), [(9, 0, 0), (9, 1, 1), (0, 0, 1)])
def test_failures_show_in_the_exit_code(
    results: Path, monkeypatch: pytest.MonkeyPatch, requests: int, failures: int, exit_code: int
) -> None:
    hosts = []

    def run_locust(user: str, protocol: str, host: str, metrics: str, **_: object) -> Run:
        hosts.append((host, metrics))
        return Run(protocol, requests, failures, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(__main__, "run_locust", run_locust)
    monkeypatch.setattr(Target, "served", lambda target: [])
    assert __main__.main(ELSEWHERE) == exit_code
    assert hosts == [(ELSEWHERE[1], ELSEWHERE[5]), (ELSEWHERE[3], ELSEWHERE[5])]


def test_part_of_an_address_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(ELSEWHERE[:2])
    assert "go together" in capsys.readouterr().err
