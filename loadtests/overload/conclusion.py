"""What the outcomes of an overload say."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.openloop import Outcome
from loadtests.refusals import refused
from loadtests.report.numbers import number, rate_text
from loadtests.report.result import Moment, Overload, Protocol, percentiles
from loadtests.shapes import Stage

MOMENTS = 160
"""Parts of the whole time, for the plot."""

IN_A_ROW = 10
"""Requests that are all answered, half of them as fast as before: then latency is normal."""


def conclude(
    protocol: Protocol, stages: Sequence[Stage], outcomes: Sequence[Outcome], *, peak_per_s: float
) -> Overload:
    """The overload.

    Args:
        stages: before, the overload and after.
        outcomes: in the order of their moments.
        peak_per_s: what is answered to those who wait for their answers.
    """
    before, overload, after = stages
    start_s, end_s = before.duration_s, before.duration_s + overload.duration_s
    rate_per_s = overload.rate_per_user
    assert rate_per_s is not None
    normal_ms = _percentile_ms([each for each in outcomes if each.scheduled_s < start_s], 95.0)
    back_after_s = None if normal_ms is None else _back_after_s(outcomes, end_s, normal_ms)
    accepted = [each for each in outcomes if each.error is None and start_s <= each.scheduled_s < end_s]
    turned_away = [each for each in outcomes if refused(each.error) and start_s <= each.scheduled_s < end_s]
    in_time = [each for each in outcomes if each.error is None and start_s <= _answered_s(each) < end_s]
    goodput_per_s = len(in_time) / overload.duration_s
    return Overload(
        protocol=protocol,
        duration_s=overload.duration_s,
        peak_per_s=peak_per_s,
        rate_per_s=rate_per_s,
        goodput_per_s=goodput_per_s,
        normal_ms=normal_ms,
        back_after_s=back_after_s,
        moments=tuple(_moments(outcomes, start_s, sum(stage.duration_s for stage in stages) / MOMENTS)),
        reason=f"{protocol}, {rate_text(rate_per_s)} requests per second for {overload.duration_s:g} s, where "
        f"{rate_text(peak_per_s)} are answered to those who wait: {rate_text(goodput_per_s)} answered per second, "
        f"{goodput_per_s / peak_per_s:.3f} of that; {_times(accepted, 'accepted')}; {_times(turned_away, 'refused')}; "
        f"{_late(outcomes)}; {_end(back_after_s, after)}.",
        method=f"Random (Poisson) arrivals: {before.duration_s:g} s at {rate_text(before.rate_per_user or 0)} per "
        f"second, the overload, {after.duration_s:g} s as before; a request is sent at its moment whatever became of "
        f"those before it, and its latency counts from then. Latency is normal again from the first of {IN_A_ROW} "
        "requests in a row that are all answered, half of them within the 95th percentile of before the overload "
        f"({'not known' if normal_ms is None else f'{number(normal_ms)} ms'}).",
    )


def _back_after_s(outcomes: Sequence[Outcome], end_s: float, normal_ms: float) -> float | None:
    after = [each for each in outcomes if each.scheduled_s >= end_s]
    for first in range(len(after) - IN_A_ROW + 1):
        some = after[first : first + IN_A_ROW]
        fast = sum(1e3 * each.latency_s <= normal_ms for each in some)
        if 2 * fast >= IN_A_ROW and all(each.error is None for each in some):
            return some[0].scheduled_s - end_s
    return None


def _moments(outcomes: Sequence[Outcome], start_s: float, length_s: float) -> list[Moment]:
    parts: list[list[Outcome]] = [[] for _ in range(MOMENTS)]
    for each in outcomes:
        parts[min(MOMENTS - 1, int(each.scheduled_s / length_s))].append(each)
    moments = []
    for place, some in enumerate(parts):
        turned_away = [each for each in some if refused(each.error)]
        moments.append(
            Moment(
                start_s=place * length_s - start_s,
                requests=len(some),
                answered=sum(each.error is None for each in some),
                refused=len(turned_away),
                p50_ms=_percentile_ms(some, 50.0),
                p99_ms=_percentile_ms(some, 99.0),
                refused_p99_ms=percentiles([1e3 * each.latency_s for each in turned_away]).get(99.0),
            )
        )
    return moments


def _answered_s(outcome: Outcome) -> float:
    return outcome.scheduled_s + outcome.latency_s


def _percentile_ms(outcomes: Sequence[Outcome], percent: float) -> float | None:
    """Of those answered."""
    return percentiles([1e3 * each.latency_s for each in outcomes if each.error is None]).get(percent)


def _times(outcomes: Sequence[Outcome], what: str) -> str:
    times_ms = percentiles([1e3 * each.latency_s for each in outcomes])
    if not times_ms:
        return f"none {what}"
    return f"{len(outcomes):,} {what}, p50 {number(times_ms[50.0])} ms, p99 {number(times_ms[99.0])} ms"


def _late(outcomes: Sequence[Outcome]) -> str:
    late_ms = percentiles([1e3 * each.late_s for each in outcomes])
    return f"99 % of all were sent at most {number(late_ms[99.0])} ms late, which is part of their latency"


def _end(back_after_s: float | None, after: Stage) -> str:
    if back_after_s is None:
        return f"latency was not normal again in the {after.duration_s:g} s after it"
    return f"latency was normal again {number(back_after_s)} s after its end"
