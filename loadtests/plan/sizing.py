"""How many replicas hold a latency, and what these cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.plan.curve import Curve
from loadtests.plan.fleet import Balancer, Outcome, Traffic, simulate_fleet
from loadtests.plan.replica import Setup

HOURS_PER_MONTH = 730
FACTORS = (0.5, 1.0, 2.0)
"""Of the rate, for the table of what another rate would take."""
MOST_SPARE = 128
"""More than this many times the replicas that have just enough capacity are not tried."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """A fleet under a rate, by several seeds."""

    rate_per_s: float
    replicas: int
    outcomes: Sequence[Outcome]

    def percentile_ms(self, share: float) -> Spread:
        return self.spread(lambda outcome: 1e3 * outcome.percentile_s(share))

    def spread(self, figure: Callable[[Outcome], float]) -> Spread:
        values = [figure(outcome) for outcome in self.outcomes]
        return Spread(median(values), min(values), max(values))


@dataclass(frozen=True)
class Cost:
    """In the unit of the price.

    Attributes:
        machines: or GPUs, where a price is one's.
        per_million_images: at the rate, without headroom.
    """

    machines: int
    per_hour: float
    per_month: float
    per_million_images: float


@dataclass(frozen=True)
class Answer:
    """What a rate takes.

    Attributes:
        expected: at the rate.
        held: with the headroom.
    """

    expected: Case
    held: Case
    cost: Cost


@dataclass(frozen=True)
class Sizing:
    """A question, but for the rate.

    Attributes:
        setup: of each replica.
        p99_s: the bound.
        headroom: by how much more of the rate it must be held, as a share.
        price_per_hour: of a machine or a GPU.
        replicas_per_machine: that share one such.
        requests: to simulate in each of the seeds.
    """

    curve: Curve
    setup: Setup
    p99_s: float
    headroom: float = 0.2
    balancer: Balancer = "random"
    price_per_hour: float = 1.0
    replicas_per_machine: int = 1
    requests: int = 20_000
    seeds: int = 5

    def case(self, traffic: Traffic, replicas: int) -> Case:
        return Case(traffic.rate_per_s, replicas, [self._simulate(traffic, replicas, seed) for seed in self._seeds])

    def answer(self, traffic: Traffic) -> Answer:
        """The fewest replicas that hold the bound in every seed, with the headroom.

        Raises:
            ValueError: no number of them does, or the question makes no sense.
        """
        if self.setup.tensors and traffic.images > self.setup.max_batch_size:
            most = self.setup.max_batch_size
            raise ValueError(f"a tensor of {traffic.images} images: what is planned has batches of {most} at most")
        raised = traffic.times(1 + self.headroom)
        at_least = max(1, math.ceil(raised.rate_per_s / capacity_per_s(self.curve, self.setup, traffic.images)))
        # A request that is refused or too late counts as one that takes forever.
        replicas = fewest(at_least, lambda replicas: self._holds(raised, replicas))
        if replicas is None:
            p99_ms = self.case(raised, at_least * MOST_SPARE).percentile_ms(0.99).median
            raise ValueError(
                f"a p99 of {1e3 * self.p99_s:g} ms is not held by {at_least * MOST_SPARE:,} replicas either: hardly "
                f"loaded, they have {p99_ms:.3g} ms"
            )
        return Answer(self.case(traffic, replicas), self.case(raised, replicas), self._cost(traffic, replicas))

    @property
    def _seeds(self) -> range:
        return range(self.seeds)

    def _simulate(self, traffic: Traffic, replicas: int, seed: int) -> Outcome:
        return simulate_fleet(
            traffic, replicas, self.balancer, self.setup, self.curve, requests=self.requests, seed=seed
        )

    def _holds(self, traffic: Traffic, replicas: int) -> bool:
        return all(self._simulate(traffic, replicas, seed).percentile_s(0.99) <= self.p99_s for seed in self._seeds)

    def _cost(self, traffic: Traffic, replicas: int) -> Cost:
        machines = math.ceil(replicas / self.replicas_per_machine)
        per_hour = machines * self.price_per_hour
        images_per_hour = 3600 * traffic.rate_per_s * traffic.images
        return Cost(machines, per_hour, HOURS_PER_MONTH * per_hour, 1e6 * per_hour / images_per_hour)


def fewest(at_least: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number that holds, given that larger ones do too; None where `at_least * MOST_SPARE` does not."""
    too_few, enough = at_least - 1, at_least
    while not holds(enough):
        if enough >= at_least * MOST_SPARE:
            return None
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if holds(middle):
            enough = middle
        else:
            too_few = middle
    return enough


def capacity_per_s(curve: Curve, setup: Setup, images: int) -> float:
    """Requests per second that a replica cannot exceed: what the scarcest of instances, event loop, decoding threads
    and cores allows, with batches of the best size.

    Args:
        images: of a request.
    """
    rows = images if setup.tensors else 1
    sizes = range(rows, min(setup.max_batch_size, max(setup.max_queue_size, rows)) + 1, rows)
    times_s = curve.times_s(setup.max_batch_size).mean(1)
    inference_s = images * min(float(times_s[size]) / size for size in sizes)
    decode_s = images * setup.decode_s
    scarcest_s = max(
        inference_s / setup.instances,
        setup.front_s(images) - (decode_s if setup.decode_threads else 0.0),
        decode_s / setup.decode_threads if setup.decode_threads else 0.0,
        (inference_s + setup.front_s(images)) / setup.cores if setup.cores else 0.0,
    )
    return 1 / scarcest_s if scarcest_s else math.inf
