from __future__ import annotations

import asyncio

import pytest

from loadtests.report.closedloop import keep_in_flight


async def test_as_many_are_in_flight_as_asked_for() -> None:
    in_flight, most = 0, 0

    async def send() -> str | None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return None

    outcomes = await keep_in_flight(send, 7, 0.02)
    assert (in_flight, most) == (0, 7)
    assert len(outcomes) >= 7
    assert all(outcome.late_s == 0 <= outcome.latency_s for outcome in outcomes)
    assert all(outcome.scheduled_s < 0.02 for outcome in outcomes)


async def test_the_last_answers_are_waited_for() -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, over.set)

    async def send() -> str | None:
        await over.wait()
        return "504: too late"

    outcomes = await keep_in_flight(send, 3, 0.01)
    assert [outcome.error for outcome in outcomes] == ["504: too late"] * 3


async def test_a_mistake_in_the_test_is_no_failed_request() -> None:
    async def send() -> str | None:
        raise KeyError("mistake")

    with pytest.raises(ExceptionGroup) as raised:
        await keep_in_flight(send, 2, 0.01)
    assert raised.group_contains(KeyError)
