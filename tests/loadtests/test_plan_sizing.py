from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from loadtests.plan.curve import Curve, Front, Point
from loadtests.plan.fleet import Traffic, setup_of
from loadtests.plan.replica import Replica
from loadtests.plan.sizing import MOST_SPARE, Case, Sizing, capacity_per_s, fewest

LINE = Curve(max_batch_size=8, points=(Point(batch_size=1, median_ms=10), Point(batch_size=8, median_ms=38)))
"""6 ms, and 4 ms for each image."""


@pytest.mark.parametrize("enough", [1, 2, 7, 64, 1000])
def test_the_fewest_that_hold(enough: int) -> None:
    assert fewest(1, lambda number: number >= enough) == (enough if enough <= MOST_SPARE else None)
    assert fewest(10, lambda number: number >= enough) == max(10, enough)


def test_instances_are_the_limit() -> None:
    curve = LINE.model_copy(update={"instances": 2})
    assert capacity_per_s(curve, setup_of(curve), 1) == pytest.approx(2 * 8 / 0.038)
    assert capacity_per_s(curve, setup_of(curve), 4) == pytest.approx(2 * 2 / 0.038)


def test_a_short_queue_fills_no_batch() -> None:
    setup = replace(setup_of(LINE), max_queue_size=2)
    assert capacity_per_s(LINE, setup, 1) == pytest.approx(2 / 0.014)


def test_tensors_fill_a_batch_as_far_as_they_fit() -> None:
    assert capacity_per_s(LINE, setup_of(LINE, tensors=True), 3) == pytest.approx(2 / (0.006 + 6 * 0.004))


def test_the_event_loop_is_the_limit() -> None:
    curve = LINE.model_copy(update={"front": Front(transport_ms=5, decode_ms=2, postprocessing_ms=1)})
    assert capacity_per_s(curve, setup_of(curve), 1) == pytest.approx(1 / 0.008)
    in_threads = curve.model_copy(update={"front": Front(transport_ms=5, decode_ms=21, decode_threads=3)})
    assert capacity_per_s(in_threads, setup_of(in_threads), 1) == pytest.approx(3 / 0.021)


def test_cores_are_the_limit() -> None:
    curve = LINE.model_copy(update={"cores": 2, "instances": 2, "front": Front(transport_ms=1)})
    assert capacity_per_s(curve, setup_of(curve), 1) == pytest.approx(2 / (0.038 / 8 + 0.001))


def test_what_costs_nothing_has_no_limit() -> None:
    free = Curve(max_batch_size=1, points=(Point(batch_size=1, median_ms=0),))
    assert capacity_per_s(free, setup_of(free), 1) == math.inf


@pytest.mark.parametrize(
    ("cores", "instances", "transport_ms"),
    [(None, 2, 1.0), (2, 2, 1.0), (2, 1, 1.0), (None, 4, 6.0), (1, 3, 0.7), (1, 3, 2.0)],
    ids=[
        "instances",
        "cores",
        "one instance",
        "event loop",
        "one core",
        "one core, much of it the loop's",
    ],
)
def test_below_the_capacity_queues_end_and_above_it_they_grow(
    cores: int | None, instances: int, transport_ms: float
) -> None:
    front = Front(transport_ms=transport_ms)
    curve = LINE.model_copy(update={"cores": cores, "instances": instances, "front": front})
    setup = replace(setup_of(curve), max_queue_size=10**9, timeout_s=1e9)
    capacity = capacity_per_s(curve, setup, 1)
    unanswered = []
    for load in (0.85, 1.2):
        gaps_s = np.random.default_rng(0).exponential(1 / load / capacity, 4000)
        replica = Replica(setup, curve.service_s(8, 0), [0.0] * 4000)
        for index, moment_s in enumerate(gaps_s.cumsum().tolist()):
            replica.run_until(moment_s)
            replica.arrive(index)
        unanswered.append(replica.outstanding)
    below, above = unanswered
    assert below < 0.02 * 4000
    assert above > 0.08 * 4000


def sizing(p99_ms: float, **others: float) -> Sizing:
    return Sizing(LINE, setup_of(LINE), 1e-3 * p99_ms, requests=3000, seeds=2, **others)  # type: ignore[arg-type]


def test_as_many_replicas_as_the_bound_takes() -> None:
    traffic = Traffic(500)
    answer = sizing(60).answer(traffic)
    replicas = answer.expected.replicas
    # Three have the capacity.
    assert replicas > 3
    assert answer.held.rate_per_s == pytest.approx(600)
    assert answer.held.percentile_ms(0.99).high <= 60
    assert answer.expected.percentile_ms(0.99).median < answer.held.percentile_ms(0.99).median
    assert sizing(60).case(traffic.times(1.2), replicas - 1).percentile_ms(0.99).high > 60


def test_a_looser_bound_takes_fewer_and_more_headroom_more() -> None:
    traffic = Traffic(500)
    found = [
        sizing(p99_ms, headroom=headroom).answer(traffic).expected.replicas
        for p99_ms, headroom in ((200, 0.0), (60, 0.0), (60, 1.0))
    ]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_what_it_costs() -> None:
    cost = sizing(60, price_per_hour=2.5, replicas_per_machine=4).answer(Traffic(500, 2)).cost
    assert cost.per_hour == 2.5 * cost.machines
    assert cost.per_month == 730 * cost.per_hour
    assert cost.per_million_images == pytest.approx(1e6 * cost.per_hour / (3600 * 500 * 2))


def test_replicas_share_machines() -> None:
    alone, shared = (sizing(60, replicas_per_machine=number).answer(Traffic(500)) for number in (1, 4))
    assert alone.expected.replicas == shared.expected.replicas == alone.cost.machines
    assert shared.cost.machines == math.ceil(alone.cost.machines / 4)


def test_a_bound_that_no_number_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"p99 of 9 ms is not held by .* hardly loaded, they have 10 ms"):
        sizing(9).answer(Traffic(50))


def test_a_tensor_larger_than_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="tensor of 9 images"):
        Sizing(LINE, setup_of(LINE, tensors=True), 1).answer(Traffic(1, 9))


def test_figures_are_the_median_over_the_seeds_and_their_range() -> None:
    case: Case = sizing(60).case(Traffic(100), 1)
    spread = case.percentile_ms(0.5)
    assert spread.low < spread.median < spread.high
