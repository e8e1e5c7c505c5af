"""Open-loop load: requests arrive at random moments, whether earlier ones were answered or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

Send = Callable[[], Awaitable[str | None]]
"""One request; what kept it from being answered, or None. An exception is a mistake in the load test itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request.

    Attributes:
        scheduled_s: when it was to be sent, from the start of the load.
        late_s: how much later it was sent.
        latency_s: from when it was to be sent to its answer, so that waiting to be sent counts too.
        error: None where it was answered.
    """

    scheduled_s: float
    late_s: float
    latency_s: float
    error: str | None = None


async def offer(send: Send, rate_per_s: float, duration_s: float, seed: int) -> list[Outcome]:
    """Send at the moments of a Poisson process, and wait for the last answer.

    The rest is as with `send_at`.

    Args:
        rate_per_s: arrivals per second, on average.
        duration_s: the last arrival is before it.
        seed: the same seed gives the same arrivals.
    """
    return await send_at(send, arrivals(rate_per_s, duration_s, seed))


async def send_at(send: Send, moments_s: Iterable[float]) -> list[Outcome]:
    """Send at each moment, and wait for the last answer.

    Latency counts from the scheduled moment: a generator that only sends once it was answered, or that is late itself,
    would leave out the very requests that a slow service keeps waiting (coordinated omission). The event loop's clock
    wakes in steps of a millisecond: up to that much of each latency is the generator's.

    Args:
        send: called once for each arrival; as many at a time as are not answered.
        moments_s: from now, in ascending order.

    Returns:
        One outcome for each arrival, in their order.

    Raises:
        ExceptionGroup: `send` raised.
    """
    clock = asyncio.get_running_loop().time
    start = clock()

    async def one(scheduled_s: float) -> Outcome:
        late_s = clock() - start - scheduled_s
        error = await send()
        return Outcome(scheduled_s, late_s, clock() - start - scheduled_s, error)

    async with asyncio.TaskGroup() as group:
        tasks = []
        for scheduled_s in moments_s:
            wait_s = start + scheduled_s - clock()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tasks.append(group.create_task(one(scheduled_s)))
    return [task.result() for task in tasks]


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> Iterator[float]:
    """The moments of a Poisson process, in seconds from its start.

    Raises:
        ValueError: the rate is not above zero.
    """
    if not rate_per_s > 0:
        raise ValueError(f"the rate is {rate_per_s}, and must be above 0 requests per second")
    gaps = random.Random(seed)
    moment_s = gaps.expovariate(rate_per_s)
    while moment_s < duration_s:
        yield moment_s
        moment_s += gaps.expovariate(rate_per_s)
