"""Which rate to try next: doubling, then bisection between the held and the missed, then the ends of the interval."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from loadtests.report.result import Run
from loadtests.search.tally import Tally

Probe = Callable[[float, int], Awaitable[Run]]
"""A run at a rate, in requests per second; and which repeat at this rate it is, from 1."""


async def bisect(
    probe: Probe, tally: Tally, *, lowest_per_s: float, resolution: float, time_left: Callable[[], bool]
) -> bool:
    """Add probes to the tally until the held and the missed rates are as close as they are to be, and have an interval.

    Args:
        lowest_per_s: the rate that is tried first, and below which none is.
        resolution: how much more the lowest missed rate may be than the highest held one, as a share of that.
        time_left: asked before each probe.

    Returns:
        Whether it came to its end while there was time.
    """
    rate: float | None = lowest_per_s
    # Each rate once, as a guide to where deciding begins.
    while rate is not None:
        if not time_left():
            return False
        rate = 2 * rate if tally.add(await probe(rate, 1)) == "held" else None

    rate = max(tally.runs[-1].load.value / 2, lowest_per_s)
    while rate is not None:
        for repeat in range(len(tally.verdicts(rate)), tally.rounds):
            if not time_left():
                return False
            tally.add(await probe(rate, repeat + 1))
        rate = _next(tally, lowest_per_s, resolution)
    return True


def _next(tally: Tally, lowest_per_s: float, resolution: float) -> float | None:
    held, missed = tally.highest_held, tally.lowest_missed
    if held is None:
        assert missed is not None
        return max(missed / 2, lowest_per_s) if missed > lowest_per_s else None
    if missed is None:
        return 2 * held
    if missed > held * (1 + resolution):
        return math.sqrt(held * missed)
    # The interval has an end where the repeats agree.
    if tally.all_missed_from is None:
        return math.sqrt(2) * max(tally.decided)
    if tally.all_held_up_to is None and min(tally.decided) > lowest_per_s:
        return max(min(tally.decided) / math.sqrt(2), lowest_per_s)
    return None
