from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests import __main__
from loadtests.fetch import fetch
from loadtests.run import Figures, Load, Run
from loadtests.target import Target, started_service
from loadtests.users import UserKind
from tests.repositories import write_model

ELSEWHERE = ["--target", "http://127.0.0.1:1", "--grpc", "127.0.0.1:2", "--metrics", "http://127.0.0.1:3/metrics"]
ANSWERED = Figures(requests=9, failures=0, answered_per_s=90.0, p50_ms=1.0, p95_ms=1.0, p99_ms=1.0)
SOME_FAILED = replace(ANSWERED, failures=1)
ONE_REFUSED = replace(ANSWERED, requests=1)
ALL_FAILED = replace(ANSWERED, failures=9)
NOTHING = Figures(requests=0, failures=0, answered_per_s=0.0, p50_ms=None, p95_ms=None, p99_ms=None)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results go; a tiny model is served."""
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


class Locust:
    """In the place of locust; it finds what it is told to, for each run in turn or the same for all."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *found: Figures,
        stages: dict[str, Figures] | None = None,
        refused: dict[str, Figures] | None = None,
    ) -> None:
        self.runs: list[tuple[str, str, Load]] = []
        self._found = list(found)
        self._stages = stages or {}
        self._refused = refused or {}
        monkeypatch.setattr(__main__, "run_locust", self.run)
        monkeypatch.setattr(Target, "served", lambda target: [])

    def run(self, kind: UserKind, target: Target, load: Load, folder: Path, name: str) -> Run:
        self.runs.append((name, kind.address(target), load))
        whole = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        return Run(name, whole, self._stages if load.shape else {}, self._refused)


def row(summary: str, name: str) -> list[str]:
    (found,) = (line for line in summary.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip().replace(",", "") for cell in found.split("|")[2:-1]]


def test_both_protocols_end_to_end(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--users", "4", "--duration-s", "1"]) == 0

    (folder,) = results.iterdir()
    summary = (folder / "summary.md").read_text()
    assert summary in capsys.readouterr().out
    assert "colours version 1 (CPUExecutionProvider, " in summary
    assert "4 users without a pause, 1 s" in summary
    for name in ("HTTP", "gRPC"):
        for ending in ("_stats.csv", "_failures.csv", "_stats_history.csv", ".html", ".json"):
            assert (folder / f"{name}{ending}").stat().st_size > 0
        requests, *times, failures, batch_size, queue_ms = row(summary, name)
        assert int(requests) > 0
        assert all(float(time) > 0 for time in times)
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


def test_by_default_both_protocols_are_loaded_by_users_without_a_pause(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locust = Locust(monkeypatch, ANSWERED)
    assert __main__.main(ELSEWHERE) == 0
    assert locust.runs == [("HTTP", ELSEWHERE[1], Load(16, 15)), ("gRPC", ELSEWHERE[3], Load(16, 15))]


def test_the_load_can_be_chosen(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locust = Locust(monkeypatch, ANSWERED)
    chosen = ["--user", "grpc-stream", "tensors-http", "--users", "4", "--rate", "100", "--shape", "spike"]
    assert __main__.main([*ELSEWHERE, *chosen]) == 0
    load = Load(4, 60, "spike", 100.0)
    assert locust.runs == [("gRPC-stream", ELSEWHERE[3], load), ("tensors-HTTP", ELSEWHERE[1], load)]


@pytest.mark.parametrize(("whole", "exit_code"), [(ANSWERED, 0), (SOME_FAILED, 1), (NOTHING, 1)])
def test_failures_show_in_the_exit_code(
    results: Path, monkeypatch: pytest.MonkeyPatch, whole: Figures, exit_code: int
) -> None:
    Locust(monkeypatch, whole)
    assert __main__.main(ELSEWHERE) == exit_code


@pytest.mark.parametrize(
    ("before", "overload", "refused", "exit_code"),
    [
        (ANSWERED, SOME_FAILED, {"overload": ONE_REFUSED}, 0),
        (ANSWERED, SOME_FAILED, {}, 1),
        (SOME_FAILED, ANSWERED, {"before": ONE_REFUSED}, 1),
        (ANSWERED, ALL_FAILED, {"overload": ONE_REFUSED}, 1),
        (ANSWERED, NOTHING, {}, 1),
    ],
)
def test_an_overload_may_be_refused_as_long_as_something_is_answered(
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: Figures,
    overload: Figures,
    refused: dict[str, Figures],
    exit_code: int,
) -> None:
    Locust(monkeypatch, SOME_FAILED, stages={"before": before, "overload": overload}, refused=refused)
    assert __main__.main([*ELSEWHERE, "--user", "http", "--shape", "overload", "--rate", "10"]) == exit_code


def test_under_any_other_shape_none_may_fail(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Locust(monkeypatch, SOME_FAILED, stages={"spike": SOME_FAILED})
    assert __main__.main([*ELSEWHERE, "--user", "http", "--shape", "spike", "--rate", "10"]) == 1


def test_an_overload_is_five_times_the_rate_given(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locust = Locust(monkeypatch, ANSWERED)
    __main__.main([*ELSEWHERE, "--user", "http", "--shape", "overload", "--rate", "10"])
    assert locust.runs == [("HTTP", ELSEWHERE[1], Load(16, 60, "overload", 50.0))]


def test_an_overload_is_five_times_the_rate_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locust = Locust(monkeypatch, ANSWERED)
    __main__.main([*ELSEWHERE, "--user", "http", "--shape", "overload", "--duration-s", "30"])
    assert locust.runs == [
        ("HTTP-closed", ELSEWHERE[1], Load(16, 10)),
        ("HTTP", ELSEWHERE[1], Load(16, 30, "overload", 450.0)),
    ]


def test_there_is_no_overload_of_a_service_that_answers_nothing(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locust = Locust(monkeypatch, NOTHING)
    assert __main__.main([*ELSEWHERE, "--user", "http", "--shape", "overload"]) == 1
    assert [name for name, _, _ in locust.runs] == ["HTTP-closed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (ELSEWHERE[:2], "go together"),
        (["--users", "0"], "not a whole number above 0"),
        (["--rate", "0"], "not a number above 0"),
        (["--shape", "steps", "--duration-s", "4"], "4 s are too short"),
        (["--user", "smtp"], "invalid choice: 'smtp'"),
    ],
)
def test_what_cannot_be_run_is_an_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(arguments)
    assert message in capsys.readouterr().err
