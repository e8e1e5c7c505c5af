"""What a search found, as a number or as the reason why there is none."""

from __future__ import annotations

from collections import Counter
from statistics import median

from loadtests.report.numbers import rate_text
from loadtests.report.result import Protocol, Run, Search
from loadtests.search.tally import Tally
from loadtests.search.verdict import RULE


def conclude(tally: Tally, protocol: Protocol, *, lowest_per_s: float, resolution: float, in_time: bool) -> Search:
    """The rate, its interval, and both in words.

    Args:
        in_time: the search came to its end.
    """
    held, missed = tally.highest_held, tally.lowest_missed
    found = f"{protocol}, p99 within {tally.p99_ms:g} ms: "
    number = None
    if held is None and missed is not None and missed > lowest_per_s:
        found += f"no number, as the time was over before any rate was held; {_seen(tally, missed)}."
    elif held is None and missed is not None:
        found += f"not even {rate_text(missed)} requests per second are held; {_seen(tally, missed)}."
    elif held is None:
        found += "no number, as the time was over before any rate was decided on."
    elif missed is None:
        found += f"at least {rate_text(held)} requests per second; the time was over before any rate was missed."
    elif _generator_is_the_limit(tally, missed):
        found += (
            f"no number, as the load generator is the limit and not the service; {_seen(tally, missed)}. "
            f"{rate_text(held)} requests per second are held, and more may be."
        )
    else:
        number = held
        found += f"{rate_text(held)} requests per second are held; {_interval(tally)}."
        if not in_time:
            found += (
                f" The time was over before the resolution was reached: {rate_text(missed)} is the lowest rate missed."
            )
    return Search(
        protocol=protocol,
        p99_ms=tally.p99_ms,
        rate_per_s=number,
        low_per_s=tally.all_held_up_to,
        high_per_s=tally.all_missed_from,
        confidence=_confidence(tally.rounds),
        resolution=resolution,
        reason=found,
        method=_method(tally.rounds, lowest_per_s, resolution),
    )


def _generator_is_the_limit(tally: Tally, missed: float) -> bool:
    verdicts = tally.verdicts(missed)
    return verdicts.count("generator") >= verdicts.count("missed")


def _seen(tally: Tally, rate: float) -> str:
    """What the probes at a rate looked like."""
    runs = [run for run in tally.runs if run.load.value == rate]
    said = [f"at {rate_text(rate)} p99 was {_p99(runs)}"]
    failures: Counter[str] = Counter()
    for run in runs:
        failures.update(run.errors)
    if failures:
        said.append(
            f"{sum(run.failures for run in runs):,} requests failed, most with “{failures.most_common(1)[0][0]}”"
        )
    said.append(f"the generator computed for {median(run.generator_busy for run in runs):.0%} of the time")
    said.append(f"and sent {median(run.late_p99_ms for run in runs):.1f} ms late (p99)")
    return ", ".join(said)


def _p99(runs: list[Run]) -> str:
    times_ms = [run.latency_ms[99.0] for run in runs if 99.0 in run.latency_ms]
    return f"{median(times_ms):,.1f} ms" if times_ms else "not known, as nothing was answered"


def _interval(tally: Tally) -> str:
    low, high = tally.all_held_up_to, tally.all_missed_from
    up_to = f"every repeat held up to {rate_text(low)}" if low else "no rate was held by every repeat"
    from_on = f"every one missed from {rate_text(high)}" if high else "no rate was missed by every one"
    return f"{up_to}, {from_on} (confidence {_confidence(tally.rounds):.0%})"


def _confidence(rounds: int) -> float:
    """That the rate which is held every other time lies in between: at one rate all repeats agree wrongly with 2^-n."""
    return max(0.0, 1 - 2 * 0.5**rounds)


def _method(rounds: int, lowest_per_s: float, resolution: float) -> str:
    return (
        f"Random (Poisson) arrivals, from {rate_text(lowest_per_s)} per second doubled until a probe misses, then "
        f"bisection until the lowest rate missed is at most {resolution:.0%} above the highest held. {rounds} probes "
        f"decide on a rate, by the majority. {RULE} The interval is between the rates that all their repeats agree on: "
        f"a rate that is held every other time is held {rounds} times in a row with probability 1/{2**rounds}. Several "
        "rates were tried, and repeats of a rate follow each other, so take the confidence as a guide."
    )
