from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.report.result import Load, Run, Search, read_result
from loadtests.search.__main__ import main
from loadtests.search.bisection import bisect
from loadtests.search.conclusion import conclude
from loadtests.search.tally import Tally
from loadtests.search.verdict import verdict
from tests.loadtests.made_up import made_up_run
from tests.repositories import write_model

Service = Callable[[float, int], Awaitable[Run]]
BOUND_MS = 20.0


def simulated(*, noise: float = 0.0, seed: int = 0, busy_per_request_s: float = 0.0) -> Service:
    """A service of 5 ms that nears its end at 400/s, as a queue does: p99 is 20 ms at 300/s.

    Args:
        noise: how much p99 varies from probe to probe, as the deviation of its logarithm.
        busy_per_request_s: what a request costs the load generator.
    """
    varying = random.Random(seed)

    async def probe(rate: float, repeat: int) -> Run:
        p99_ms = 5 / (1 - rate / 400) if rate < 400 else 60_000
        busy = min(1.0, rate * busy_per_request_s)
        if busy == 1.0:
            p99_ms += 1000
        return made_up_run(
            load=Load("open", rate), number=repeat, generator_busy=busy,
            latency_ms={99.0: p99_ms * varying.lognormvariate(0, noise)},
        )  # fmt: skip

    return probe


async def search(
    probe: Service, *, rounds: int = 3, lowest_per_s: float = 20.0, resolution: float = 0.05, most_probes: int = 1000
) -> tuple[Search, Tally]:
    tally = Tally(BOUND_MS, rounds)
    in_time = await bisect(
        probe, tally,
        lowest_per_s=lowest_per_s, resolution=resolution, time_left=lambda: len(tally.runs) < most_probes,
    )  # fmt: skip
    found = conclude(tally, "HTTP", lowest_per_s=lowest_per_s, resolution=resolution, in_time=in_time)
    return found, tally


@pytest.mark.parametrize("resolution", [0.2, 0.05, 0.01])
async def test_the_knee_is_found_to_the_resolution(resolution: float) -> None:
    found, tally = await search(simulated(), resolution=resolution)
    assert found.rate_per_s
    assert found.rate_per_s <= 300 < found.rate_per_s * (1 + resolution)
    assert found.low_per_s == found.rate_per_s
    assert found.high_per_s
    assert 300 < found.high_per_s <= found.rate_per_s * (1 + resolution)
    assert found.confidence == 0.75
    assert "requests per second are held" in found.reason
    # 20, 40, … 320 once each; then every rate as often as there are rounds.
    assert [run.load.value for run in tally.runs[:5]] == [20, 40, 80, 160, 320]
    assert len(tally.verdicts(found.rate_per_s)) == len(tally.verdicts(found.high_per_s)) == 3


@pytest.mark.parametrize("lowest_per_s", [20.0, 300.0, 30.0])
async def test_it_does_not_matter_where_it_begins(lowest_per_s: float) -> None:
    found, _ = await search(simulated(), lowest_per_s=lowest_per_s)
    assert found.rate_per_s
    assert found.rate_per_s <= 300 < 1.05 * found.rate_per_s


async def test_noise_moves_the_rate_little_and_the_interval_says_by_how_much() -> None:
    within, rates = 0, []
    for seed in range(40):
        found, _ = await search(simulated(noise=0.1, seed=seed), rounds=5)
        assert found.rate_per_s
        rates.append(found.rate_per_s)
        within += (found.low_per_s or 0.0) <= 300 <= (found.high_per_s or float("inf"))
    # 10 % of the p99 is 2.5 % of the rate here.
    assert all(270 < rate < 325 for rate in rates)
    assert within / 40 >= 0.9


async def test_a_chance_miss_while_doubling_is_made_good() -> None:
    honest = simulated()
    missed = False

    async def probe(rate: float, repeat: int) -> Run:
        nonlocal missed
        run = await honest(rate, repeat)
        if rate == 40 and not missed:
            missed = True
            return made_up_run(load=run.load, number=repeat, latency_ms={99.0: 500.0})
        return run

    found, _ = await search(probe)
    assert found.rate_per_s
    assert found.rate_per_s <= 300 < 1.05 * found.rate_per_s


async def test_a_chance_hold_while_doubling_is_made_good() -> None:
    honest = simulated()

    async def probe(rate: float, repeat: int) -> Run:
        if repeat == 1 and rate < 1000:
            return made_up_run(load=Load("open", rate), number=repeat, latency_ms={99.0: 1.0})
        return await honest(rate, repeat)

    found, _ = await search(probe)
    assert found.rate_per_s
    assert found.rate_per_s <= 300 < 1.05 * found.rate_per_s
    # Every rate below 1,000 is held once: the interval goes to where the repeats agree.
    assert found.high_per_s == pytest.approx(1280)
    assert found.low_per_s == found.rate_per_s
    assert "every one missed from 1,280 (confidence 75%)" in found.reason


async def test_the_interval_ends_where_the_repeats_agree() -> None:
    honest = simulated()

    async def probe(rate: float, repeat: int) -> Run:
        if repeat == 2 and rate > 60:
            return made_up_run(load=Load("open", rate), number=repeat, latency_ms={99.0: 500.0})
        return await honest(rate, repeat)

    found, _ = await search(probe)
    assert found.rate_per_s
    assert found.rate_per_s <= 300 < 1.05 * found.rate_per_s
    assert found.low_per_s == pytest.approx(160 / 2**1.5)
    found, _ = await search(probe, lowest_per_s=70)
    assert found.low_per_s is None
    assert "no rate was held by every repeat" in found.reason


async def test_no_number_where_even_the_lowest_rate_misses() -> None:
    found, tally = await search(simulated(), lowest_per_s=350.0)
    assert found.rate_per_s is found.low_per_s is None
    assert "not even 350 requests per second are held; at 350 p99 was 40.0 ms" in found.reason
    assert len(tally.runs) == 3


async def test_no_number_where_requests_fail() -> None:
    async def probe(rate: float, repeat: int) -> Run:
        errors = {"503: the queue is full": 2}
        return made_up_run(load=Load("open", rate), number=repeat, latency_ms={99.0: 1.0}, failures=2, errors=errors)

    found, _ = await search(probe)
    assert found.rate_per_s is None
    assert "6 requests failed, most with “503: the queue is full”" in found.reason


async def test_no_number_where_the_load_generator_is_the_limit() -> None:
    found, _ = await search(simulated(busy_per_request_s=1 / 200))
    assert found.rate_per_s is None
    assert "the load generator is the limit and not the service" in found.reason
    assert found.low_per_s
    assert 190 < found.low_per_s < 200
    assert f"{found.low_per_s:,.0f} requests per second are held, and more may be" in found.reason


@pytest.mark.parametrize(
    ("most_probes", "says"),
    [
        (2, "the time was over before any rate was decided on"),
        (5, "the time was over before any rate was decided on"),
        (8, "at least 160 requests per second; the time was over before any rate was missed"),
        (12, "The time was over before the resolution was reached: 320 is the lowest rate missed"),
    ],
)
async def test_the_time_is_bounded(most_probes: int, says: str) -> None:
    found, tally = await search(simulated(), most_probes=most_probes)
    assert len(tally.runs) <= most_probes
    assert says in found.reason
    assert (found.rate_per_s is None) == (most_probes < 12)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"latency_ms": {99.0: 20.0}}, "held"),
        ({"latency_ms": {99.0: 20.0}, "generator_busy": 1.0, "late_p99_ms": 15.0}, "held"),
        ({"latency_ms": {99.0: 20.1}}, "missed"),
        ({"latency_ms": {99.0: 20.1}, "late_p99_ms": 2.0}, "missed"),
        ({"latency_ms": {99.0: 1.0}, "failures": 1}, "missed"),
        ({"latency_ms": {}, "failures": 1000}, "missed"),
        ({"latency_ms": {99.0: 90.0}, "late_p99_ms": 45.0}, "generator"),
        ({"latency_ms": {99.0: 20.1}, "generator_busy": 0.9}, "generator"),
    ],
)
def test_verdicts(figures: dict[str, Any], expected: str) -> None:
    assert verdict(made_up_run(load=Load("open", 100.0), **figures), BOUND_MS) == expected


def test_all_that_repeats_agree_on() -> None:
    tally = Tally(BOUND_MS, 2)
    for rate, held in ((10, 2), (20, 2), (30, 1), (40, 2), (50, 0), (60, 1), (70, 0)):
        for repeat in range(2):
            p99_ms = 1.0 if repeat < held else 99.0
            tally.add(made_up_run(load=Load("open", rate), number=repeat + 1, latency_ms={99.0: p99_ms}))
    assert (tally.highest_held, tally.lowest_missed) == (20, 30)
    tally.add(made_up_run(load=Load("open", 35), latency_ms={99.0: 99.0}))  # Not decided: one probe only.
    assert (tally.all_held_up_to, tally.all_missed_from) == (20, 70)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results go; a tiny model is served."""
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_search_end_to_end(results: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    # No service answers in a microsecond: the search ends after the rate that it begins with.
    arguments = ["--p99-ms", "0.001", "--protocol", protocol, "--lowest-rate", "200", "--duration-s", "0.2"]
    assert main([*arguments, "--rounds", "1"]) == 1

    (folder,) = results.iterdir()
    result = read_result(folder)
    assert result.search
    assert "not even 200 requests per second are held" in result.search.reason
    assert result.search.reason in capsys.readouterr().out
    assert result.search.reason in (folder / "report.md").read_text()
    (run,) = result.runs
    assert run.load == Load("open", 200.0)
    assert run.failures == 0
    assert run.requests > 100
    assert (folder / "report.html").stat().st_size > 0


@pytest.mark.parametrize("bound", ["0", "-1", "fast"])
def test_a_bound_that_is_none_is_refused(bound: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--p99-ms", bound])
    assert "is not a number above 0" in capsys.readouterr().err
