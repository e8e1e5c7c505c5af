from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from loadtests.openloop import Outcome
from loadtests.overload.__main__ import main, watched
from loadtests.overload.conclusion import conclude
from loadtests.report.result import Overload, read_result
from loadtests.shapes import Stage
from tests.repositories import write_model
from tests.service.conftest import ONE_INSTANCE

STAGES = [Stage("before", 10, 1, 10.0), Stage("overload", 20, 1, 200.0), Stage("after", 10, 1, 10.0)]
FULL = "503: the queue is full"


def outcomes(*, slow_after: int = 3, refused_after: int = 0) -> list[Outcome]:
    """10 requests a second in 10 ms each, then 200 of which every fifth is answered, after 1 s, then 10 a second again.

    Args:
        slow_after: how many of those after the overload still take 1 s.
        refused_after: how many after these are refused.
    """
    before = [Outcome(0.1 * step, 0.0, 0.01) for step in range(100)]
    overload = [
        Outcome(10 + step / 200, 0.0, *((1.0, None) if step % 5 == 0 else (0.002, FULL))) for step in range(4000)
    ]
    after = [
        Outcome(
            30 + 0.1 * step,
            0.0,
            1.0 if step < slow_after else 0.01,
            FULL if slow_after <= step < slow_after + refused_after else None,
        )
        for step in range(100)
    ]
    return before + overload + after


def concluded(**of: int) -> Overload:
    return conclude("HTTP", STAGES, outcomes(**of), peak_per_s=40.0)


def test_goodput_is_what_was_answered_while_it_lasted() -> None:
    # The first answer comes after 1 s: 19 of the 20 seconds have 40.
    found = concluded()
    assert found.goodput_per_s == pytest.approx(38.0, abs=0.1)
    assert "0.950 of that" in found.reason


def test_the_refused_and_the_accepted_have_their_own_latency() -> None:
    found = concluded()
    assert "800 accepted, p50 1,000 ms, p99 1,000 ms" in found.reason
    assert "3,200 refused, p50 2.00 ms, p99 2.00 ms" in found.reason
    assert "sent at most 0 ms late" in found.reason


@pytest.mark.parametrize(
    ("of", "back_after_s"),
    [
        ({"slow_after": 0}, 0.0),
        ({"slow_after": 3}, 0.0),  # Half of ten may be slow.
        ({"slow_after": 30}, 2.5),
        ({"slow_after": 3, "refused_after": 20}, 2.3),
        ({"slow_after": 100}, None),
        ({"slow_after": 3, "refused_after": 97}, None),
    ],
)
def test_latency_is_normal_again_once_ten_in_a_row_are(of: dict[str, int], back_after_s: float | None) -> None:
    found = concluded(**of)
    assert found.normal_ms == pytest.approx(10.0)
    assert found.back_after_s == (None if back_after_s is None else pytest.approx(back_after_s))
    assert ("not normal again" in found.reason) == (back_after_s is None)


def test_the_moments_are_the_whole_time() -> None:
    moments = concluded().moments
    assert sum(moment.requests for moment in moments) == 4200
    assert sum(moment.answered for moment in moments) == 1000
    assert sum(moment.refused for moment in moments) == 3200
    assert moments[0].start_s == -10
    (first,) = (moment for moment in moments if moment.start_s == 0)
    assert (first.p50_ms, first.refused_p99_ms) == (1000.0, 2.0)


def test_nothing_is_said_of_nothing() -> None:
    found = conclude("HTTP", STAGES, [Outcome(1.0, 0.0, 1.0, "ConnectionError: gone")], peak_per_s=40.0)
    assert (found.normal_ms, found.back_after_s, found.goodput_per_s) == (None, None, 0.0)
    assert "none accepted; none refused" in found.reason


async def test_each_stage_is_told_as_it_begins_and_has_its_own_share_of_computing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = [Stage("before", 0.05, 1, 10.0), Stage("overload", 0.5, 1, 200.0), Stage("after", 0.05, 1, 10.0)]
    watch = asyncio.create_task(watched(stages))
    await asyncio.sleep(0)
    assert capsys.readouterr().out == "before: 0.05 s of 10 requests/s\n"
    told = ""
    while not told:
        await asyncio.sleep(0.01)
        told = capsys.readouterr().out
    assert told == "overload: 0.5 s of 200 requests/s\n"
    start = time.thread_time()
    while time.thread_time() < start + 0.2:
        pass
    before, during, after = await watch
    assert during > max(before, after)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results go; a model is served that is slow enough to be overloaded."""
    write_model(tmp_path / "models", slow_rounds=20, extra=ONE_INSTANCE)
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setenv("FOVEA_MAX_QUEUE_SIZE", "8")
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("protocol", ["http", pytest.param("grpc", marks=pytest.mark.system)])
def test_a_service_that_is_overloaded(results: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Whether latency is normal again in half a second is the machine's own affair.
    main(["--protocol", protocol, "--rate", "200", "--duration-s", "0.5", "--calm-s", "0.5"])

    (folder,) = results.iterdir()
    result = read_result(folder)
    assert result.overload
    assert result.overload.reason in capsys.readouterr().out
    before, during, after = result.runs
    assert before.load == after.load < during.load
    assert during.requests == pytest.approx(500, rel=0.2)
    assert during.refused == during.failures > 0
    assert during.refused_ms[99.0] > 0
    assert during.latency_ms[99.0] > 0
    for file in ("report.md", "report.html"):
        text = (folder / file).read_text()
        assert result.overload.reason in text
        assert "Refusals" in text
    assert "Before, in and after the overload" in (folder / "report.html").read_text()


@pytest.mark.system
def test_what_is_answered_is_measured_where_it_is_not_given(results: Path) -> None:
    main(["--in-flight", "4", "--duration-s", "0.5", "--calm-s", "0.5"])
    result = read_result(next(results.iterdir()))
    assert result.overload
    assert result.overload.rate_per_s == pytest.approx(5 * result.overload.peak_per_s)
    assert result.runs[0].load.value == pytest.approx(result.overload.peak_per_s / 4)


def test_more_in_flight_than_are_answered_is_an_error(results: Path) -> None:
    with pytest.raises(SystemExit, match=r"64 requests in flight are not all answered \(503: .*see --in-flight"):
        main(["--duration-s", "0.2", "--calm-s", "0.2"])


def test_a_service_that_answers_nothing_is_an_error(results: Path) -> None:
    elsewhere = ["--target", "http://127.0.0.1:1", "--grpc", "127.0.0.1:2", "--metrics", "http://127.0.0.1:3/metrics"]
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1:1"):
        main(elsewhere)
