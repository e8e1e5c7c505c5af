"""The plan's predictions, held against the real service under a load that does not wait for its answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from loadtests.metrics import mean_between, read_metrics
from loadtests.openloop import Outcome, Send, offer
from loadtests.plan.curve import Curve
from loadtests.plan.fleet import WARM_UP, Traffic, setup_of
from loadtests.plan.served import Served
from loadtests.plan.sizing import Case, Sizing, capacity_per_s
from loadtests.target import Target

FRACTIONS = (0.3, 0.5, 0.7, 0.85, 0.95)
"""Of the predicted capacity."""
CONNECTIONS = 1024
"""Most that are open at a time; a request that finds all of them in use waits for one, which its latency has in it."""
CALIBRATION = 0.5
"""Share of the predicted capacity, without the load generator, at which its own cost is first measured."""
CALIBRATION_S = 5.0
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Measured:
    """What the client saw at one rate; latencies count from when a request was to be sent, and are infinite where no
    answer came.

    Attributes:
        late_p99_ms: how much later than planned a request was sent, which is part of its latency.
    """

    requests: int
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    failed: float
    late_p99_ms: float
    mean_batch_size: float | None


@dataclass(frozen=True)
class Compared:
    """Attributes:
    client_ms: processor time of the load generator for a request; what is predicted counts it as the front's.
    """

    fraction: float
    client_ms: float
    predicted: Case
    measured: Measured


@dataclass(frozen=True)
class Validation:
    """Attributes:
    capacity_per_s: predicted, with the load generator on the same cores.
    """

    capacity_per_s: float
    loads: Sequence[Compared]


def require_same(curve: Curve, served: Served) -> None:
    """Ends the program where the curve is not one of what is served."""
    for name in ("execution_provider", "instances", "max_batch_size", "max_queue_size", "max_queue_delay_ms"):
        of_curve, of_service = getattr(curve, name), getattr(served, name)
        if of_curve != of_service:
            raise SystemExit(f"error: the curve has {name} {of_curve}, the service {of_service}: measure it again")


async def validate(curve: Curve, target: Target, model: str, image: bytes, duration_s: float, seeds: int) -> Validation:
    """Load the service at five rates, and predict what that gives.

    The load generator takes processor time of the same cores. It is measured, before the loads for the capacity and
    during each of them for its prediction, and counted as the front's.

    Args:
        image: of each request.
        duration_s: of each load.
        seeds: of each prediction.
    """
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def send() -> str | None:
            try:
                async with session.post(
                    f"{target.http}/v1/classify?model={model}", data=image, headers={"content-type": "image/jpeg"}
                ) as response:
                    await response.read()
                    return None if response.status == 200 else str(response.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                return str(error) or type(error).__name__

        rate = CALIBRATION * capacity_per_s(curve, setup_of(curve), 1)
        shared, _, _ = await _loaded(curve, send, rate, min(CALIBRATION_S, duration_s), len(FRACTIONS))
        capacity = capacity_per_s(shared, setup_of(shared), 1)
        loads = []
        for seed, fraction in enumerate(FRACTIONS):
            rate = fraction * capacity
            print(f"{fraction:.0%} of the capacity: {rate:,.0f} requests/s for {duration_s:g} s …", flush=True)
            before = await asyncio.to_thread(read_metrics, target.metrics)
            shared, client_ms, outcomes = await _loaded(curve, send, rate, duration_s, seed)
            after = await asyncio.to_thread(read_metrics, target.metrics)
            measured = measured_in(outcomes, mean_between(before, after, "fovea_batch_size", model=model))
            requests = max(1, round(rate * duration_s))
            sizing = Sizing(shared, setup_of(shared), math.inf, requests=requests, seeds=seeds)
            predicted = await asyncio.to_thread(sizing.case, Traffic(rate), 1)
            loads.append(Compared(fraction, client_ms, predicted, measured))
    return Validation(capacity, loads)


async def _loaded(
    curve: Curve, send: Send, rate_per_s: float, duration_s: float, seed: int
) -> tuple[Curve, float, list[Outcome]]:
    """Load the service; the curve with this load generator's processor time in it, that time for a request, in ms, and
    what became of the requests."""
    start = time.process_time()
    outcomes = await offer(send, rate_per_s, duration_s, seed)
    client_ms = 1e3 * (time.process_time() - start) / max(1, len(outcomes))
    front = curve.front.model_copy(update={"transport_ms": curve.front.transport_ms + client_ms})
    return curve.model_copy(update={"front": front}), client_ms, outcomes


def measured_in(outcomes: Sequence[Outcome], mean_batch_size: float | None) -> Measured:
    """Args:
    outcomes: of one load; the first of them, which meet an empty service, count for the rate of answers only.
    """
    counted = outcomes[int(WARM_UP * len(outcomes)) :]
    latency_ms = [math.inf if each.error else 1e3 * each.latency_s for each in counted]
    end_s = max((each.scheduled_s + each.latency_s for each in outcomes), default=math.inf)
    return Measured(
        requests=len(outcomes),
        answered_per_s=sum(each.error is None for each in outcomes) / end_s,
        p50_ms=_percentile(latency_ms, 0.50),
        p99_ms=_percentile(latency_ms, 0.99),
        failed=sum(each.error is not None for each in counted) / max(1, len(counted)),
        late_p99_ms=_percentile([1e3 * each.late_s for each in counted], 0.99),
        mean_batch_size=mean_batch_size,
    )


def _percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf")) if values else math.inf
