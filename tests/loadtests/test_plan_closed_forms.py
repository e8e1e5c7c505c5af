"""The simulated replica against queues whose answer is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from loadtests.plan.fleet import simulate
from loadtests.plan.replica import Replica, Setup

REQUESTS = 60_000
CLOSE = pytest.approx
SERVICE_S = 0.01


def poisson(rate_per_s: float, requests: int = REQUESTS, seed: int = 1) -> list[float]:
    gaps_s = np.random.default_rng(seed).exponential(1 / rate_per_s, requests)
    moments: list[float] = gaps_s.cumsum().tolist()
    return moments


def exponential(mean_s: float) -> Callable[[int], float]:
    draw = random.Random(2)
    return lambda size: draw.expovariate(1 / mean_s)


def latencies(
    rate_per_s: float, setup: Setup, service_s: Callable[[int], float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    _, latency_s = simulate(poisson(rate_per_s), setup, service_s)
    return np.array(latency_s)


ALONE = Setup(max_batch_size=1, max_queue_size=10**9, timeout_s=1e9)


def test_one_server_with_exponential_times() -> None:
    """M/M/1: the time in the system is exponential, of mean 1 / (μ - λ)."""
    found = latencies(50, ALONE, exponential(SERVICE_S))
    assert found.mean() == CLOSE(1 / (100 - 50), rel=0.05)
    assert np.quantile(found, 0.99) == CLOSE(math.log(100) / (100 - 50), rel=0.08)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_with_a_constant_time(load: float) -> None:
    """M/D/1, Pollaczek and Khinchine: the mean wait is ρ S / (2 (1 - ρ))."""
    found = latencies(load / SERVICE_S, ALONE, lambda size: SERVICE_S)
    assert found.mean() - SERVICE_S == CLOSE(load * SERVICE_S / (2 * (1 - load)), rel=0.05)


def test_one_server_with_two_times() -> None:
    """M/G/1, Pollaczek and Khinchine: the mean wait is λ E[S²] / (2 (1 - ρ))."""
    draw = random.Random(3)
    found = latencies(50, ALONE, lambda size: 0.005 if draw.random() < 0.8 else 0.03)
    mean_s, square = 0.8 * 0.005 + 0.2 * 0.03, 0.8 * 0.005**2 + 0.2 * 0.03**2
    assert found.mean() - mean_s == CLOSE(50 * square / (2 * (1 - 50 * mean_s)), rel=0.07)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.5), (4, 0.8)])
def test_several_servers(servers: int, load: float) -> None:
    """M/M/c: the mean wait is C(c, a) / (c μ - λ), with Erlang's C."""
    offered = load * servers
    rate = offered / SERVICE_S
    setup = Setup(max_batch_size=1, instances=servers, max_queue_size=10**9, timeout_s=1e9)
    found = latencies(rate, setup, exponential(SERVICE_S))
    last = offered**servers / math.factorial(servers) / (1 - load)
    erlang_c = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    assert found.mean() - SERVICE_S == CLOSE(erlang_c / (servers / SERVICE_S - rate), rel=0.1)


def test_a_full_queue_loses_what_it_must() -> None:
    """M/M/1/K: with ρ = 1 every number in the system from 0 to K is as likely, so 1 / (K + 1) is lost."""
    setup = Setup(max_batch_size=1, max_queue_size=4, timeout_s=1e9)
    replica, latency_s = simulate(poisson(100), setup, exponential(SERVICE_S))
    assert replica.rejected / REQUESTS == CLOSE(1 / 6, rel=0.05)
    assert np.isinf(latency_s).sum() == replica.rejected


def test_littles_law() -> None:
    """L = λ W, with L looked at from outside, now and then."""
    latency_s = [math.inf] * REQUESTS
    draw = random.Random(4)
    replica = Replica(
        Setup(max_batch_size=4, instances=2, transport_s=0.002, cores=2), lambda size: 0.005 + 0.003 * size, latency_s
    )
    rate, seen, look_s = 300.0, [], 0.0
    for index, moment_s in enumerate(poisson(rate)):
        while look_s < moment_s:
            replica.run_until(look_s)
            seen.append(replica.outstanding)
            look_s += draw.expovariate(rate)
        replica.run_until(moment_s)
        replica.arrive(index)
    replica.run_until(math.inf)
    assert np.mean(seen) == CLOSE(rate * np.mean(latency_s), rel=0.03)


def test_an_infinitely_fast_server() -> None:
    found = latencies(1000, Setup(max_batch_size=8), lambda size: 0.0)
    assert not found.any()


def test_batches_of_all_that_waits() -> None:
    """M/D[1,∞]/1. A batch takes D, and then what came in the meantime, or the next to come where nothing did: its mean
    size is λD + exp(-λD). The instance is busy for ρ = D / (D + exp(-λD) / λ) of the time; who comes while it is has
    what is left of the batch, anything from 0 to D alike, and then D; all others D alone."""
    rate, setup = 150.0, Setup(max_batch_size=10**6, max_queue_size=10**9, timeout_s=1e9)
    replica, latency_s = simulate(poisson(rate), setup, lambda size: SERVICE_S)
    arriving = rate * SERVICE_S
    busy = SERVICE_S / (SERVICE_S + math.exp(-arriving) / rate)
    assert replica.rows / replica.batches == CLOSE(arriving + math.exp(-arriving), rel=0.01)
    assert replica.instances_busy_s / replica.now_s == CLOSE(busy, rel=0.01)
    assert np.mean(latency_s) == CLOSE(SERVICE_S * (1 + busy / 2), rel=0.01)
    assert np.quantile(latency_s, 0.99) == CLOSE(SERVICE_S * (2 - 0.01 / busy), rel=0.01)


def test_a_loop_before_an_instance_on_one_core_is_one_queue_of_all_the_work() -> None:
    """Sharing a core keeps it busy as long as there is work: of all that comes in, λ (F + S) of it is busy."""
    setup = Setup(max_batch_size=1, cores=1, transport_s=0.004, max_queue_size=10**9, timeout_s=1e9)
    replica, _ = simulate(poisson(50), setup, lambda size: SERVICE_S)
    assert replica.work_s == CLOSE(REQUESTS * (0.004 + SERVICE_S))
    assert replica.work_s / replica.now_s == CLOSE(50 * 0.014, rel=0.02)
