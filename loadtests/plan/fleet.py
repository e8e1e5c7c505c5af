"""Replicas behind a balancer, under one stream of requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loadtests.plan.curve import Curve
from loadtests.plan.replica import Replica, Setup

Balancer = Literal["random", "round-robin", "least-outstanding"]
Moments = NDArray[np.float64]

WARM_UP = 0.1
"""Share of a simulated Poisson stream that is not counted: the first of it meet an empty replica."""
GROUP = 32
"""Most replicas that are simulated together."""

HOW: dict[Balancer, str] = {
    "random": "each request to a random replica: a replica of a Poisson stream gets one too, so that one is simulated",
    "round-robin": "the replicas in turn: of a Poisson stream a replica gets every n-th arrival, so that one is "
    "simulated (gaps of an Erlang distribution)",
    "least-outstanding": "each request to the replica with the fewest unanswered ones; all replicas are simulated "
    f"together, of more than {GROUP} a group of {GROUP} with its share of the requests",
}
"""What each balancer does, and what of it is simulated."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests that arrive by chance (a Poisson process), or as they did before.

    Attributes:
        images: of a request.
        moments_s: of a trace, ascending, from 0 on.
    """

    rate_per_s: float
    images: int = 1
    moments_s: Moments | None = None

    def times(self, factor: float) -> Traffic:
        """As much more of it; a trace is played faster."""
        moments_s = None if self.moments_s is None else self.moments_s / factor
        return replace(self, rate_per_s=factor * self.rate_per_s, moments_s=moments_s)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one simulation saw.

    Attributes:
        latency_s: of each request, infinite where it was refused or too late.
        answered_per_s: by one replica.
        instance_utilisation: share of the time that an instance ran a batch.
        loop_utilisation: share of the time that an event loop worked.
        core_utilisation: share of a replica's cores that worked; None: not limited.
    """

    latency_s: NDArray[np.float64]
    answered_per_s: float
    mean_batch_size: float
    instance_utilisation: float
    loop_utilisation: float
    core_utilisation: float | None

    def percentile_s(self, share: float) -> float:
        """The latency that this share of the requests had at most."""
        return float(np.quantile(self.latency_s, share, method="inverted_cdf"))

    @property
    def failed(self) -> float:
        """Share of the requests that were refused or too late."""
        return float(np.isinf(self.latency_s).mean())


def setup_of(curve: Curve, *, tensors: bool = False) -> Setup:
    """A replica as the curve says it is.

    Args:
        tensors: whether requests are tensors rather than encoded images.
    """
    front = curve.front
    return Setup(
        max_batch_size=curve.max_batch_size,
        instances=curve.instances,
        max_queue_size=curve.max_queue_size,
        max_queue_delay_s=1e-3 * curve.max_queue_delay_ms,
        tensors=tensors,
        cores=curve.cores,
        transport_s=1e-3 * front.transport_ms,
        # Tensors are neither decoded nor ranked.
        decode_s=0.0 if tensors else 1e-3 * front.decode_ms,
        postprocessing_s=0.0 if tensors else 1e-3 * front.postprocessing_ms,
        decode_threads=front.decode_threads,
    )


def simulate_fleet(
    traffic: Traffic, replicas: int, balancer: Balancer, setup: Setup, curve: Curve, *, requests: int, seed: int
) -> Outcome:
    """Simulate what a fleet makes of the traffic; the same seed gives the same.

    Args:
        requests: of a Poisson stream, how many to simulate.

    Raises:
        ValueError: the curve has no time for the largest batch.
    """
    random = np.random.default_rng(seed)
    service_s = curve.service_s(setup.max_batch_size, seed)
    rate, moments = traffic.rate_per_s, traffic.moments_s
    if balancer == "least-outstanding":
        group = min(replicas, GROUP)
        if moments is None:
            moments = random.exponential(replicas / group / rate, requests).cumsum()
        else:
            moments = moments[random.random(len(moments)) < group / replicas]
        return _together(moments, group, setup, service_s, traffic)
    if moments is None:
        gaps_s = (
            random.exponential(replicas / rate, requests)
            if balancer == "random"
            else random.gamma(replicas, 1 / rate, requests)
        )
        streams = [gaps_s.cumsum()]
    else:
        turns = random.integers(replicas, size=len(moments)) if balancer == "random" else np.arange(len(moments))
        order = np.argsort(turns % replicas, kind="stable")
        starts = np.searchsorted((turns % replicas)[order], np.arange(1, replicas))
        streams = np.split(moments[order], starts)
    simulated = [simulate(stream.tolist(), setup, service_s, traffic.images) for stream in streams]
    latency_s = [latency for _, latencies in simulated for latency in latencies]
    return _outcome([replica for replica, _ in simulated], setup, latency_s, traffic)


def simulate(
    moments_s: Sequence[float], setup: Setup, service_s: Callable[[int], float], images: int = 1
) -> tuple[Replica, list[float]]:
    """One replica from the first arrival to the last answer, and the latency of each request, infinite where it failed.

    Args:
        moments_s: of the arrivals, ascending, from 0 on.
        service_s: as `Replica`.
        images: of a request.
    """
    latency_s = [math.inf] * len(moments_s)
    replica = Replica(setup, service_s, latency_s)
    for index, moment_s in enumerate(moments_s):
        replica.run_until(moment_s)
        replica.arrive(index, images)
    replica.run_until(math.inf)
    return replica, latency_s


def _together(
    moments: Moments, replicas: int, setup: Setup, service_s: Callable[[int], float], traffic: Traffic
) -> Outcome:
    latency_s = [math.inf] * len(moments)
    fleet = [Replica(setup, service_s, latency_s) for _ in range(replicas)]
    for index, moment_s in enumerate(moments.tolist()):
        for replica in fleet:
            replica.run_until(moment_s)
        # Of several with as few, they take turns.
        first = index % replicas
        chosen = min(fleet[first:] + fleet[:first], key=lambda replica: replica.outstanding)
        chosen.arrive(index, traffic.images)
    for replica in fleet:
        replica.run_until(math.inf)
    return _outcome(fleet, setup, latency_s, traffic)


def _outcome(replicas: Sequence[Replica], setup: Setup, latency_s: Sequence[float], traffic: Traffic) -> Outcome:
    counted = np.array(latency_s)
    span_s = len(replicas) * max(replica.now_s for replica in replicas)
    answered_per_s = float(np.isfinite(counted).sum()) / span_s
    if traffic.moments_s is None:
        counted = counted[int(WARM_UP * len(counted)) :]
    batches = sum(replica.batches for replica in replicas)
    return Outcome(
        latency_s=counted,
        answered_per_s=answered_per_s,
        mean_batch_size=sum(replica.rows for replica in replicas) / batches if batches else 0.0,
        instance_utilisation=sum(replica.instances_busy_s for replica in replicas) / (setup.instances * span_s),
        loop_utilisation=sum(replica.loop_busy_s for replica in replicas) / span_s,
        core_utilisation=sum(replica.work_s for replica in replicas) / (setup.cores * span_s) if setup.cores else None,
    )
