from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from loadtests.plan.curve import Curve, Point
from loadtests.plan.fleet import HOW, Balancer, Outcome, Traffic, setup_of, simulate_fleet
from loadtests.plan.trace import read_trace

SERVICE_S = 0.01
CURVE = Curve(max_batch_size=1, max_queue_size=10**6, points=(Point(batch_size=1, median_ms=1e3 * SERVICE_S),))


def simulated(traffic: Traffic, replicas: int, balancer: Balancer, *, requests: int = 20_000, seed: int = 1) -> Outcome:
    return simulate_fleet(traffic, replicas, balancer, setup_of(CURVE), CURVE, requests=requests, seed=seed)


def test_every_balancer_says_what_it_does() -> None:
    assert set(HOW) == set(get_args(Balancer))


@pytest.mark.parametrize("balancer", get_args(Balancer))
def test_one_replica_is_the_same_behind_every_balancer(balancer: Balancer) -> None:
    """M/D/1: the mean wait is ρ S / (2 (1 - ρ))."""
    found = simulated(Traffic(60), 1, balancer)
    assert found.latency_s.mean() == pytest.approx(SERVICE_S + 0.6 * SERVICE_S / 0.8, rel=0.07)
    assert found.instance_utilisation == pytest.approx(0.6, rel=0.05)
    assert found.answered_per_s == pytest.approx(60, rel=0.05)


def test_a_random_balancer_gives_each_of_many_replicas_a_poisson_stream() -> None:
    found = simulated(Traffic(60_000), 1000, "random")
    assert found.latency_s.mean() == pytest.approx(SERVICE_S + 0.6 * SERVICE_S / 0.8, rel=0.07)
    assert found.answered_per_s == pytest.approx(60, rel=0.05)


def test_taking_turns_among_many_is_almost_a_clock() -> None:
    """Gaps of the sum of 1,000 hardly differ, so that hardly anyone waits."""
    found = simulated(Traffic(60_000), 1000, "round-robin")
    assert found.latency_s.max() < 1.1 * SERVICE_S
    assert found.instance_utilisation == pytest.approx(0.6, rel=0.05)


def test_a_split_stream_is_as_one_that_was_simulated_whole() -> None:
    """The replicas of a trace are all simulated: a trace of a Poisson process gives what one replica of it does."""
    moments_s = np.random.default_rng(5).exponential(1 / 240, 20_000).cumsum()
    for balancer in ("random", "round-robin"):
        whole = simulated(Traffic(240, moments_s=moments_s), 4, balancer)
        one = simulated(Traffic(240), 4, balancer)
        assert whole.latency_s.mean() == pytest.approx(one.latency_s.mean(), rel=0.06)
        assert whole.instance_utilisation == pytest.approx(one.instance_utilisation, rel=0.05)
        assert whole.answered_per_s == pytest.approx(60, rel=0.05)


def test_who_looks_who_is_free_waits_least() -> None:
    waits = [simulated(Traffic(320), 4, balancer, requests=8000).latency_s.mean() - SERVICE_S for balancer in HOW]
    by_chance, in_turn, by_load = waits
    assert by_load < in_turn < by_chance


def test_a_fleet_that_is_not_full_keeps_no_request_waiting_for_another() -> None:
    """The fewest unanswered: two requests at a time never meet on four replicas."""
    moments_s = np.repeat(np.arange(100.0), 2)
    found = simulated(Traffic(2, moments_s=moments_s), 4, "least-outstanding")
    assert found.latency_s == pytest.approx(np.full(200, SERVICE_S))


def test_of_a_large_fleet_a_group_is_simulated() -> None:
    found = simulated(Traffic(60_000), 1000, "least-outstanding", requests=2000)
    assert found.instance_utilisation == pytest.approx(0.6, rel=0.15)


@pytest.mark.parametrize("balancer", get_args(Balancer))
def test_the_seed_decides(balancer: Balancer) -> None:
    one, same, other = (simulated(Traffic(100), 2, balancer, requests=500, seed=seed) for seed in (3, 3, 4))
    assert one.latency_s.tolist() == same.latency_s.tolist()
    assert one.latency_s.tolist() != other.latency_s.tolist()


def test_what_is_refused_takes_forever() -> None:
    setup = setup_of(CURVE.model_copy(update={"max_queue_size": 1}))
    moments_s = np.array([0.0] * 9 + [1.0])
    outcome = simulate_fleet(Traffic(10, 1, moments_s), 1, "random", setup, CURVE, requests=0, seed=0)
    # Of nine that come at once one waits; the queue was empty for it, and is full for the others.
    assert outcome.failed == pytest.approx(0.8)
    assert outcome.percentile_s(0.2) == pytest.approx(SERVICE_S)
    assert outcome.percentile_s(0.5) == np.inf


def test_a_trace_begins_at_its_first_arrival(tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text("# seconds\n1700000000.5\n1700000001.0\n1700000001.0\n1700000002.5\n")
    traffic = read_trace(tmp_path / "trace.txt", 3)
    assert traffic.moments_s is not None
    assert traffic.moments_s.tolist() == [0, 0.5, 0.5, 2]
    assert (traffic.rate_per_s, traffic.images) == (1.5, 3)
    faster = traffic.times(2)
    assert faster.moments_s is not None
    assert faster.moments_s.tolist() == [0, 0.25, 0.25, 1]
    assert faster.rate_per_s == 3


@pytest.mark.parametrize("text", ["", "1\n", "1\n1\n", "2\n1\n", "1 2\n3 4\n", "soon\n", "1\nnan\n"])
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_what_is_no_trace_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.txt").write_text(text)
    with pytest.raises(SystemExit, match=r"trace\.txt.*must"):
        read_trace(tmp_path / "trace.txt", 1)
