"""The simulated replica against the batcher and the classifier that the service has, with the same arrivals."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from queue import SimpleQueue
from threading import Condition, Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadtests.plan.replica import Replica, Setup
from service import batching
from service.batching import BatchOutput, DynamicBatcher
from service.classifier import Classifier
from service.errors import DeadlineExceededError, QueueFullError
from service.statistics import VersionStatistics
from service.tensors import Tensors

Arrivals = Sequence[tuple[float, int]]
"""When, and of how many images."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0


class Threads:
    """How many threads do something; time stands still until none does."""

    def __init__(self) -> None:
        self._at_work = 0
        self._changed = Condition()

    def change(self, by: int) -> None:
        with self._changed:
            self._at_work += by
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._at_work, timeout=60)


class NoWait(selectors.DefaultSelector):
    """What an event loop waits with: nothing is awaited but timers, so the clock is set to the next of them."""

    def __init__(self, clock: Clock, threads: Threads) -> None:
        super().__init__()
        self._clock, self._threads = clock, threads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._threads.wait()
        if told := super().select(0):
            return told
        assert timeout is not None, "everything waits for something that does not come"
        self._clock.now_s += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its threads sleep by its clock, and one of them works at a time."""

    def __init__(self, clock: Clock) -> None:
        self.threads = Threads()
        super().__init__(NoWait(clock, self.threads))
        self._clock = clock

    def time(self) -> float:
        return self._clock.now_s

    def sleep_in_thread(self, seconds: float) -> None:
        over = Event()

        def wake() -> None:
            self.threads.change(+1)
            over.set()
            self.threads.wait()

        self.call_soon_threadsafe(self.call_at, self.time() + seconds, wake)
        self.threads.change(-1)
        over.wait()


class Batches(SimpleQueue[Any]):
    """What an instance is given: its thread is at work from then on until it asks for more."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self._threads = loop.threads
        self._begun = False

    def put(self, batch: Any) -> None:  # type: ignore[override]
        self._threads.change(+1)
        super().put(batch)
        self._threads.wait()

    def get(self) -> Any:  # type: ignore[override]
        if self._begun:
            self._threads.change(-1)
        self._begun = True
        batch = super().get()
        if batch is None:
            self._threads.change(-1)
        return batch


@dataclass
class Seen:
    """When each batch began and whose items were in it; the latency of what was answered, and what was not."""

    batches: list[tuple[float, list[int]]] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)
    rejected: int = 0
    expired: int = 0


def work_s(rows: int) -> float:
    return 0.004 + 0.002 * rows


@asynccontextmanager
async def batcher(setup: Setup, seen: Seen, clock: Clock) -> AsyncIterator[DynamicBatcher[Tensors, Tensors]]:
    """One whose items are tensors of a row for each image, with the number of the request in it."""

    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    def instance(items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        seen.batches.append((clock.now_s, [int(item[0].flat[0]) for item in items]))
        loop.sleep_in_thread(work_s(sum(len(item[0]) for item in items)))
        return BatchOutput([(np.zeros(3),)] * len(items), 0, 0)

    batcher = DynamicBatcher[Tensors, Tensors](
        [instance] * setup.instances,
        max_batch_size=setup.max_batch_size,
        max_queue_size=setup.max_queue_size,
        max_queue_delay_s=setup.max_queue_delay_s,
    )
    yield batcher
    await batcher.close()


async def send(arrivals: Arrivals, seen: Seen, clock: Clock, answer: Callable[[int, int], Awaitable[object]]) -> None:
    """Args:
    answer: a request, given its number and its images.
    """

    async def one(number: int, moment_s: float, images: int) -> None:
        try:
            await answer(number, images)
            seen.answered[number] = clock.now_s - moment_s
        except QueueFullError:
            seen.rejected += 1
        except DeadlineExceededError:
            seen.expired += 1

    async with asyncio.TaskGroup() as callers:
        for moment_s, together in groupby(enumerate(arrivals), lambda arrival: arrival[1][0]):
            await asyncio.sleep(moment_s - clock.now_s)
            for number, (_, images) in together:
                callers.create_task(one(number, moment_s, images))


async def through_the_batcher(setup: Setup, arrivals: Arrivals, clock: Clock) -> Seen:
    seen = Seen()
    async with batcher(setup, seen, clock) as queue:

        async def answer(number: int, images: int) -> object:
            deadline = clock.now_s + setup.timeout_s
            return await queue.submit((np.full((images, 1), number),), deadline, rows=images)

        await send(arrivals, seen, clock, answer)
    return seen


class Served(SimpleNamespace):
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def through_the_classifier(setup: Setup, arrivals: Arrivals, clock: Clock) -> Seen:
    """The classifier as it is, and around it no more of a model and of a decoder than it asks for."""
    seen = Seen()

    async def decode(image: bytes, *_: object) -> Any:
        return np.full((1, 1), int(image))

    async with batcher(setup, seen, clock) as queue:
        config = SimpleNamespace(
            max_batch_size=setup.max_batch_size, priority_levels=1, default_priority=1, queue_timeout_s=lambda *_: None
        )
        served: Any = Served(
            name="numbers", version="1", config=config, batcher=queue, statistics=VersionStatistics(),
            images=SimpleNamespace(output=0, labels=("a", "b", "c"), scores="logits", features=False),
            kind=lambda item: None,
        )  # fmt: skip
        catalogue: Any = SimpleNamespace(choose=lambda *_: (served, None))
        decoder: Any = SimpleNamespace(decode=decode)
        classifier = Classifier(catalogue, decoder, max_images=1000)

        async def answer(number: int, images: int) -> object:
            return await classifier.classify([str(number).encode()] * images, deadline=clock.now_s + setup.timeout_s)

        await send(arrivals, seen, clock, answer)
    return seen


def through_the_replica(setup: Setup, arrivals: Arrivals) -> Seen:
    seen = Seen()
    latency_s = [math.inf] * len(arrivals)
    replica = Replica(setup, work_s, latency_s, lambda start_s, numbers: seen.batches.append((start_s, numbers)))
    for number, (moment_s, images) in enumerate(arrivals):
        replica.run_until(moment_s)
        replica.arrive(number, images)
    replica.run_until(math.inf)
    seen.answered = {number: latency for number, latency in enumerate(latency_s) if latency < math.inf}
    seen.rejected, seen.expired = replica.rejected, replica.expired
    return seen


def in_bursts(requests: int, most_images: int, shortest_gap_s: float = 0.0) -> Arrivals:
    """Quiet for a while, then several times what can be answered; one gap in four is the shortest."""
    draw = random.Random(7)
    arrivals, moment_s = [], 0.0
    for _ in range(requests):
        moment_s += draw.choice([shortest_gap_s, draw.expovariate(1000), draw.expovariate(200), draw.expovariate(40)])
        arrivals.append((moment_s, draw.randint(1, most_images)))
    return arrivals


def require_same(simulated: Seen, real: Seen) -> None:
    assert [numbers for _, numbers in simulated.batches] == [numbers for _, numbers in real.batches]
    assert [start_s for start_s, _ in simulated.batches] == pytest.approx([start_s for start_s, _ in real.batches])
    assert simulated.answered == pytest.approx(real.answered)
    assert (simulated.rejected, simulated.expired) == (real.rejected, real.expired)


# No deadline falls on the end of a batch: which of two timers of one moment comes first is no rule.
SETUPS = {
    "one instance": Setup(max_batch_size=8),
    "two instances": Setup(max_batch_size=4, instances=2),
    "no batches": Setup(max_batch_size=1),
    "a delay": Setup(max_batch_size=8, instances=2, max_queue_delay_s=0.015),
    "a delay that is often too long": Setup(max_batch_size=8, max_queue_delay_s=0.05, timeout_s=0.0413),
    "a short queue": Setup(max_batch_size=4, max_queue_size=6),
    "deadlines": Setup(max_batch_size=4, max_queue_size=12, timeout_s=0.0307),
    "deadlines, a short queue and a delay": Setup(
        max_batch_size=6, instances=2, max_queue_size=7, max_queue_delay_s=0.01, timeout_s=0.0251
    ),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(batching, "SimpleQueue", Batches)
    return clock


@pytest.mark.parametrize("most_images", [1, 4], ids=["single images", "tensors"])
@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS.keys())
def test_the_same_arrivals_make_the_same_batches(setup: Setup, most_images: int, clock: Clock) -> None:
    arrivals = in_bursts(300, min(most_images, setup.max_batch_size))
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(clock)) as runner:
        real = runner.run(through_the_batcher(setup, arrivals, clock))
    require_same(through_the_replica(replace(setup, tensors=True), arrivals), real)


@pytest.mark.parametrize("instances", [1, 2])
def test_images_of_one_request_are_let_in_as_the_classifier_lets_them_in(instances: int, clock: Clock) -> None:
    setup = Setup(max_batch_size=3, instances=instances)
    # Whose images come first, where requests come at one moment, is no rule.
    arrivals = in_bursts(100, 8, shortest_gap_s=1e-5)
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(clock)) as runner:
        real = runner.run(through_the_classifier(setup, arrivals, clock))
    require_same(through_the_replica(setup, arrivals), real)
