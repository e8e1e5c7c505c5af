"""Five times as much as can be answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtests.faults.callers import Tally
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica
from loadtests.images import draw
from loadtests.openloop import Outcome, offer
from loadtests.refusals import refused
from loadtests.report.closedloop import keep_in_flight
from loadtests.report.result import Protocol, percentiles
from loadtests.report.senders import allow_many_connections, sender

TIMES = 5
IN_FLIGHT = 32
QUEUE = 64
PROTOCOLS: tuple[Protocol, ...] = ("HTTP", "gRPC")
PHOTO = draw(1, (500, 375))


async def provoke(seconds: float) -> Finding:
    allow_many_connections()
    tallies: dict[str, Tally] = {}
    seen = []
    async with replica("--max-queue-size", str(QUEUE)) as service:
        for protocol in PROTOCOLS:
            async with sender(protocol, service.target, [PHOTO]) as send:
                warm_up = await keep_in_flight(send, IN_FLIGHT, 0.5)
                calm = await keep_in_flight(send, IN_FLIGHT, seconds)
                peak_per_s = len(calm) / max(each.scheduled_s + each.latency_s for each in calm)
                outcomes = await offer(send, TIMES * peak_per_s, 2 * seconds, seed=0)
            counted = round(service.metric("fovea_requests_total", protocol=protocol.lower()))
            tallies[protocol] = tally_of([*warm_up, *calm, *outcomes], counted)
            seen.append(f"{protocol}: {said(outcomes, peak_per_s)}")
    return Finding(
        f"photos of 500×375 at random moments, {TIMES} times as many as are answered to {IN_FLIGHT} in flight; queues "
        f"of {QUEUE}; the sender on the same cores",
        "; ".join(seen),
        tallies,
    )


def tally_of(outcomes: Sequence[Outcome], counted: int) -> Tally:
    """What the service itself has never seen, it has not accepted: grpcio cancels calls that it cannot hand on in time.

    Args:
        counted: requests by the service's own count.
    """
    answered = sum(each.error is None for each in outcomes)
    refusals = Counter(each.error.partition(": ")[0] for each in outcomes if each.error and refused(each.error))
    others = Counter(each.error.partition(": ")[0] for each in outcomes if each.error and not refused(each.error))
    if counted == answered + refusals.total():
        return Tally(answered, refusals, unreached=others.total())
    return Tally(answered, refusals, lost=others)


def said(outcomes: list[Outcome], peak_per_s: float) -> str:
    answered = [each for each in outcomes if each.error is None]
    turned_away = [1e3 * (each.latency_s - each.late_s) for each in outcomes if refused(each.error)]
    length_s = max(each.scheduled_s + each.latency_s for each in outcomes)
    goodput = len(answered) / length_s / peak_per_s
    refusals = percentiles(turned_away)
    share = len(turned_away) / len(outcomes)
    times = f", p50 {refusals[50.0]:.0f} ms, p99 {refusals[99.0]:.0f} ms" if refusals else ""
    dropped = (len(outcomes) - len(answered) - len(turned_away)) / len(outcomes)
    unseen = f", {dropped:.0%} were cancelled by grpcio before the service saw them" if dropped else ""
    return f"{goodput:.0%} of {peak_per_s:.0f}/s was answered all the same, {share:.0%} were refused{times}{unseen}"


FAULT = Fault("overload", "Overload", provoke)
