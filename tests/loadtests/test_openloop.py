from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from statistics import fmean

import pytest

from loadtests.openloop import arrivals, offer


def test_arrivals_are_those_of_a_poisson_process() -> None:
    moments = list(arrivals(100.0, 100.0, seed=1))
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] < 100
    gaps = [later - moment for moment, later in pairwise(moments)]
    # Exponential: the mean is 1/rate, and a share of 1/e is longer than that.
    assert fmean(gaps) == pytest.approx(0.01, rel=0.05)
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_a_seed_gives_the_same_arrivals() -> None:
    assert list(arrivals(50.0, 2.0, seed=3)) == list(arrivals(50.0, 2.0, seed=3))
    assert list(arrivals(50.0, 2.0, seed=3)) != list(arrivals(50.0, 2.0, seed=4))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0 requests per second"):
        next(arrivals(rate, 1.0, seed=0))


async def test_requests_arrive_whether_earlier_ones_were_answered_or_not() -> None:
    expected = list(arrivals(500.0, 0.1, seed=5))
    sent, all_sent = 0, asyncio.Event()

    async def send() -> str | None:
        nonlocal sent
        sent += 1
        if sent == len(expected):
            all_sent.set()
        await all_sent.wait()
        return None

    outcomes = await offer(send, 500.0, 0.1, seed=5)
    assert [outcome.scheduled_s for outcome in outcomes] == expected
    # Nobody was answered before the last one came.
    assert all(outcome.scheduled_s + outcome.latency_s >= expected[-1] for outcome in outcomes)


async def test_latency_counts_from_the_scheduled_arrival() -> None:
    first = True

    async def send() -> str | None:
        nonlocal first
        if first:
            first = False
            time.sleep(0.1)  # noqa: ASYNC251 - the load generator itself is held up.
        return None

    outcomes = await offer(send, 1000.0, 0.05, seed=6)
    for outcome in outcomes[1:]:
        assert outcome.late_s >= 0.1 + outcomes[0].scheduled_s - outcome.scheduled_s
        assert outcome.latency_s >= outcome.late_s


async def test_what_kept_a_request_from_being_answered_is_told() -> None:
    answers = iter(["503: queue is full", *[None] * 1000])

    async def send() -> str | None:
        return next(answers)

    outcomes = await offer(send, 1000.0, 0.05, seed=7)
    assert [outcome.error for outcome in outcomes] == ["503: queue is full", *[None] * (len(outcomes) - 1)]


async def test_a_mistake_in_the_test_is_no_failed_request() -> None:
    async def send() -> str | None:
        raise KeyError("mistake")

    with pytest.raises(ExceptionGroup) as raised:
        await offer(send, 1000.0, 0.05, seed=8)
    assert raised.group_contains(KeyError)
