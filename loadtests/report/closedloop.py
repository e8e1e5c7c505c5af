"""Closed-loop load: a number of requests in flight, each followed by the next once it is answered."""

from __future__ import annotations

import asyncio

from loadtests.openloop import Outcome, Send


async def keep_in_flight(send: Send, in_flight: int, duration_s: float) -> list[Outcome]:
    """Send without a pause until the time is over, and wait for the last answers.

    Returns:
        One outcome for each request, each counted from when it was sent; none is late.

    Raises:
        ExceptionGroup: `send` raised.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    outcomes = []

    async def one_after_another() -> None:
        while (sent_s := clock() - start) < duration_s:
            error = await send()
            outcomes.append(Outcome(sent_s, 0.0, clock() - start - sent_s, error))

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(one_after_another())
    return outcomes
