"""What a rollout under load comes to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.samples import Sample

from loadtests.metrics import read_metrics, total
from loadtests.openloop import Outcome, Send, offer
from loadtests.report.closedloop import keep_in_flight
from loadtests.report.result import percentiles
from loadtests.rollout.repository import CANDIDATE, CURRENT, take_step
from loadtests.target import Target
from loadtests.targets.process import ProcessTree

IN_FLIGHT = 8
RATE = 1 / 2
"""Of the open load, as a share of what is answered to a closed one."""
LOOK_S = 0.02


@dataclass(frozen=True)
class Side:
    """One version in its role: requests, mean confidence, mean time of an inference in ms; NaN: there was no answer."""

    requests: int
    confidence: float
    inference_ms: float


@dataclass(frozen=True)
class Canary:
    share: float
    current: Side
    canary: Side


@dataclass(frozen=True)
class Shadow:
    """Confidences are means over the images that were compared; NaN: there were none."""

    compared: int
    agreed: int
    confidence: float
    current_confidence: float
    dropped: int
    failed: int


@dataclass(frozen=True)
class Round:
    """One stretch of load.

    Attributes:
        per_s: answers a second.
        p50_ms, p99_ms: latency of those that were answered; NaN: none was.
        cpu_ms: CPU time of the service's processes for each answer; NaN likewise.
    """

    shadowed: bool
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Rollout:
    """Attributes:
    open, closed: rounds without and with a shadow, by turns.
    rate_per_s: of the open load.
    requests, failed: of the whole.
    """

    canary: Canary
    shadow: Shadow
    open: tuple[Round, ...]
    closed: tuple[Round, ...]
    rate_per_s: float
    requests: int
    failed: int


class RolloutLoad:
    """Args:
    model: the folder of a model with two versions, in the repository that the target serves and polls.
    send: one request that names no version.
    """

    def __init__(self, target: Target, model: Path, send: Send) -> None:
        self._target = target
        self._model = model
        self._send = send
        assert target.pid is not None
        self._service = ProcessTree(target.pid)
        self._service.start()
        self._outcomes: list[Outcome] = []

    async def run(self, *, requests: int, share: str, rounds: int, round_s: float) -> Rollout:
        """Args:
        requests: that a canary has its share of.
        """
        peak_per_s = (await self._closed(False, round_s)).per_s
        if not peak_per_s:
            raise SystemExit(f"error: no request was answered ({self._outcomes[0].error})")
        canary = await self._canary(requests, share)
        rate_per_s = RATE * peak_per_s
        opened, closed = [], []
        before = self._read()
        for number in range(rounds):
            for shadowed in (False, True) if number % 2 == 0 else (True, False):
                await self._shadow(shadowed)
                opened.append(await self._open(shadowed, rate_per_s, round_s, number))
                closed.append(await self._closed(shadowed, round_s))
        shadow = _shadow_between(before, self._read())
        await self._steps_under_load(round_s)
        failed = sum(outcome.error is not None for outcome in self._outcomes)
        return Rollout(canary, shadow, tuple(opened), tuple(closed), rate_per_s, len(self._outcomes), failed)

    async def _canary(self, requests: int, share: str) -> Canary:
        take_step(self._model, "canary", CANDIDATE, "--share", share)
        await self._until(lambda samples: total(samples, "fovea_rollout_share", role="canary") == float(share))
        before, left = self._read(), requests

        async def one_after_another() -> None:
            nonlocal left
            while left:
                left -= 1
                error = await self._send()
                self._outcomes.append(Outcome(0.0, 0.0, 0.0, error))

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(one_after_another())
        after = self._read()
        await self._end_trial()
        current, canary = (_side_between(before, after, role) for role in ("current", "canary"))
        return Canary(float(share), current, canary)

    async def _shadow(self, shadowed: bool) -> None:
        if shadowed:
            take_step(self._model, "shadow", CANDIDATE, "--share", "1")
            await self._until(lambda samples: total(samples, "fovea_rollout_share", role="shadow") == 1)
        else:
            await self._end_trial()

    async def _end_trial(self) -> None:
        if total(self._read(), "fovea_rollout_share"):
            take_step(self._model, "rollback")
            await self._until(lambda samples: not total(samples, "fovea_rollout_share"))

    async def _steps_under_load(self, duration_s: float) -> None:
        """Canary, promotion and rollback, each with a part of the time."""
        load = asyncio.create_task(keep_in_flight(self._send, IN_FLIGHT, duration_s))
        for words in (("pin", CURRENT), ("canary", CANDIDATE), ("promote",), ("rollback",)):
            await asyncio.to_thread(take_step, self._model, *words)
            await asyncio.sleep(duration_s / 6)
        self._outcomes += await load

    async def _open(self, shadowed: bool, rate_per_s: float, duration_s: float, seed: int) -> Round:
        busy_s = self._cpu_s()
        outcomes = await offer(self._send, rate_per_s, duration_s, seed)
        return self._round(shadowed, outcomes, busy_s)

    async def _closed(self, shadowed: bool, duration_s: float) -> Round:
        busy_s = self._cpu_s()
        outcomes = await keep_in_flight(self._send, IN_FLIGHT, duration_s)
        return self._round(shadowed, outcomes, busy_s)

    def _round(self, shadowed: bool, outcomes: Sequence[Outcome], busy_s: float) -> Round:
        self._outcomes += outcomes
        return round_of(shadowed, outcomes, self._cpu_s() - busy_s)

    def _cpu_s(self) -> float:
        return self._service.sample()["service_cpu_s"]

    def _read(self) -> list[Sample]:
        return read_metrics(self._target.metrics)

    async def _until(self, true: Callable[[list[Sample]], bool]) -> None:
        async with asyncio.timeout(60):
            while not true(await asyncio.to_thread(self._read)):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)


def round_of(shadowed: bool, outcomes: Sequence[Outcome], cpu_s: float) -> Round:
    """Args:
    cpu_s: of the service.
    """
    latency_ms = [1e3 * outcome.latency_s for outcome in outcomes if outcome.error is None]
    found = percentiles(latency_ms)
    return Round(
        shadowed,
        len(latency_ms) / max((outcome.scheduled_s + outcome.latency_s for outcome in outcomes), default=math.inf),
        found.get(50.0, math.nan),
        found.get(99.0, math.nan),
        1e3 * cpu_s / (len(latency_ms) or math.nan),
    )


def _side_between(before: Sequence[Sample], after: Sequence[Sample], role: str) -> Side:
    def rise(name: str) -> float:
        return total(after, f"fovea_rollout_{name}", role=role) - total(before, f"fovea_rollout_{name}", role=role)

    return Side(
        round(rise("requests_total")),
        rise("confidence_sum") / (rise("confidence_count") or math.nan),
        1e3 * rise("duration_seconds_sum") / (rise("duration_seconds_count") or math.nan),
    )


def _shadow_between(before: Sequence[Sample], after: Sequence[Sample]) -> Shadow:
    def rise(name: str, **labels: str) -> float:
        return total(after, f"fovea_rollout_{name}", **labels) - total(before, f"fovea_rollout_{name}", **labels)

    compared = rise("compared_images_total")
    return Shadow(
        round(compared),
        round(rise("agreed_images_total")),
        rise("compared_confidence_total", role="shadow") / (compared or math.nan),
        rise("compared_confidence_total", role="current") / (compared or math.nan),
        round(rise("dropped_total")),
        round(rise("failed_total")),
    )
