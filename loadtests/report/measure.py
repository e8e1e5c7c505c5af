"""One run: one protocol under one load, and what the service's own metrics say of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import fmean

from prometheus_client.samples import Sample

from loadtests.metrics import mean_between, read_metrics
from loadtests.openloop import Outcome, Send, offer
from loadtests.refusals import refused
from loadtests.report.closedloop import keep_in_flight
from loadtests.report.result import STAGES, Load, Protocol, Run, percentiles
from loadtests.target import Target
from loadtests.targets.detect import detect
from loadtests.targets.measurement import Measurement
from loadtests.targets.readings import Readings, efficiency

WARM_UP_S = 1.0
"""Of the same load before each run, not counted: it opens the connections."""

MOST_ERRORS = 10


async def measure(
    target: Target,
    protocol: Protocol,
    send: Send,
    load: Load,
    *,
    number: int,
    duration_s: float,
    seed: int,
    hardware: str | None,
) -> Run:
    """Load the service after a short warm-up.

    Args:
        send: as `senders.sender` gives it for the protocol and the target.
        number: the run's round.
        duration_s: of sending; the last answers come after it.
        seed: of the arrivals of an open load.
        hardware: what is watched where the service was started here; None: what is found.
    """
    await _send(send, load, min(WARM_UP_S, duration_s), seed + 1)
    before = read_metrics(target.metrics)
    watched = target.pid is not None  # Elsewhere it is not this machine that serves.
    with Measurement(detect(hardware), target.pid) if watched else nullcontext() as measurement:
        computed_s, start = time.thread_time(), time.monotonic()
        outcomes = await _send(send, load, duration_s, seed)
        computed_s, passed_s = time.thread_time() - computed_s, time.monotonic() - start
    after = read_metrics(target.metrics)

    return run_of(
        protocol,
        load,
        outcomes,
        number=number,
        duration_s=duration_s,
        generator_busy=computed_s / passed_s,
        stage_ms=stage_means(before, after),
        batch_sizes=batch_sizes(before, after),
        readings=measurement.readings if measurement else None,
    )


def run_of(
    protocol: Protocol,
    load: Load,
    outcomes: Sequence[Outcome],
    *,
    number: int,
    duration_s: float,
    generator_busy: float,
    stage_ms: dict[str, float],
    batch_sizes: dict[str, int],
    readings: Readings | None,
) -> Run:
    """What the outcomes say; the arguments are as in `Run`.

    Args:
        outcomes: of all requests, in the order of their sending.
        duration_s: of sending.
        readings: of the target, where it was watched.
    """
    answered_ms = [1e3 * outcome.latency_s for outcome in outcomes if outcome.error is None]
    refused_ms = [1e3 * outcome.latency_s for outcome in outcomes if refused(outcome.error)]
    late_ms = percentiles([1e3 * outcome.late_s for outcome in outcomes])
    errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    whole_s = max((outcome.scheduled_s + outcome.latency_s for outcome in outcomes), default=0.0)
    whole_s = max(whole_s, duration_s)
    return Run(
        protocol=protocol,
        load=load,
        round=number,
        duration_s=whole_s,
        requests=len(outcomes),
        failures=errors.total(),
        errors=dict(errors.most_common(MOST_ERRORS)),
        images_per_s=len(answered_ms) / whole_s,
        mean_ms=fmean(answered_ms) if answered_ms else None,
        latency_ms=percentiles(answered_ms),
        late_p99_ms=late_ms.get(99.0, 0.0),
        generator_busy=generator_busy,
        stage_ms=stage_ms,
        batch_sizes=batch_sizes,
        readings=readings.as_json() if readings else None,
        refused=len(refused_ms),
        refused_ms=percentiles(refused_ms),
        efficiency=efficiency(len(answered_ms), readings) if readings else None,
    )


def stage_means(before: Sequence[Sample], after: Sequence[Sample]) -> dict[str, float]:
    """Mean milliseconds of an image in each stage that was observed between two readings."""
    means = {stage: mean_between(before, after, "fovea_stage_duration_seconds", stage=stage) for stage in STAGES}
    return {stage: 1e3 * mean_s for stage, mean_s in means.items() if mean_s is not None}


def batch_sizes(before: Sequence[Sample], after: Sequence[Sample]) -> dict[str, int]:
    """How many batches there were of each size, or range of sizes, between two readings: `{"1": 7, "3–4": 2}`."""
    upto: Counter[float] = Counter()
    for samples, sign in ((before, -1), (after, 1)):
        for sample in samples:
            if sample.name == "fovea_batch_size_bucket":
                upto[float(sample.labels["le"])] += sign * int(sample.value)
    counts: dict[str, int] = {}
    below, smaller = 0.0, 0
    for most, batches in sorted(upto.items()):
        if batches > smaller:
            counts[_size_range(below, most)] = batches - smaller
        below, smaller = most, batches
    return counts


def _size_range(below: float, most: float) -> str:
    if most == math.inf:
        return f"over {below:g}"
    return f"{most:g}" if most == below + 1 else f"{below + 1:g}–{most:g}"


async def _send(send: Send, load: Load, duration_s: float, seed: int) -> list[Outcome]:
    if load.kind == "closed":
        return await keep_in_flight(send, round(load.value), duration_s)
    return await offer(send, load.value, duration_s, seed)
