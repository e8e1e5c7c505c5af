from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from threading import Event, Semaphore

import pytest

from service.batching import BatchOutput, BatchRecord, Completed, DynamicBatcher
from service.errors import DeadlineExceededError, FoveaError, InferenceError, QueueFullError, UnavailableError

SOON_S = 10.0
"""For what must happen: never waited for in full."""


class Instance:
    """Doubles numbers, each batch when it is let."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.started: asyncio.Queue[list[int]] = asyncio.Queue()
        self.permits = Semaphore(0)
        self.failure: Exception | None = None

    def run(self, items: Sequence[int]) -> BatchOutput[int]:
        self.loop.call_soon_threadsafe(self.started.put_nowait, list(items))
        self.permits.acquire()
        if self.failure:
            raise self.failure
        return BatchOutput([2 * item for item in items], 0.25, 0.5)

    async def batch(self) -> list[int]:
        """The next batch that this instance starts."""
        return await asyncio.wait_for(self.started.get(), SOON_S)

    def finish(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.permits.release()

    @property
    def idle(self) -> bool:
        return self.started.empty()


class Bench:
    """Batchers that are closed at the end of a test, and callers."""

    def __init__(self) -> None:
        self.records: list[BatchRecord] = []
        self._closing: list[tuple[DynamicBatcher[int, int], list[Instance]]] = []

    def batcher(
        self, *instances: Instance, max_batch_size: int = 4, max_queue_size: int = 100, delay_s: float = 0.0
    ) -> DynamicBatcher[int, int]:
        batcher = DynamicBatcher[int, int](
            [instance.run for instance in instances],
            max_batch_size=max_batch_size,
            max_queue_size=max_queue_size,
            max_queue_delay_s=delay_s,
            on_batch=self.records.append,
        )
        self._closing.append((batcher, list(instances)))
        return batcher

    async def close(self) -> None:
        for batcher, instances in self._closing:
            for instance in instances:
                instance.finish(1000)
            await asyncio.wait_for(batcher.close(), SOON_S)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


def call(batcher: DynamicBatcher[int, int], *items: int) -> list[asyncio.Task[Completed[int]]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def results(callers: Sequence[asyncio.Task[Completed[int]]]) -> list[int]:
    return [completed.result for completed in await asyncio.wait_for(asyncio.gather(*callers), SOON_S)]


async def test_a_lone_item_runs_at_once_and_alone(bench: Bench) -> None:
    instance = Instance()
    (caller,) = call(bench.batcher(instance), 21)
    assert await instance.batch() == [21]
    instance.finish()
    completed = await caller
    assert (completed.result, completed.batch) == (42, BatchRecord(1, 0.25, 0.5))


async def test_an_idle_instance_takes_everything_that_waits_oldest_first(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=4)
    callers = call(batcher, 0)
    await instance.batch()
    callers += call(batcher, 1, 2, 3)
    await settle()
    assert (batcher.queue_depth, instance.idle) == (3, True)
    instance.finish()
    assert await instance.batch() == [1, 2, 3]
    assert batcher.queue_depth == 0
    instance.finish()
    assert await results(callers) == [0, 2, 4, 6]


async def test_a_batch_is_never_larger_than_the_maximum(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=4)
    callers = call(batcher, 0)
    await instance.batch()
    callers += call(batcher, *range(1, 11))
    await settle()
    batches = []
    for _ in range(3):
        instance.finish()
        batches.append(await instance.batch())
    instance.finish()
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert await results(callers) == [2 * item for item in range(11)]
    assert [record.batch_size for record in bench.records] == [1, 4, 4, 2]


async def test_results_go_to_their_callers_with_the_batch_they_were_in(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    first = call(batcher, 7)
    await instance.batch()
    others = call(batcher, 8, 9)
    await settle()
    instance.finish(2)
    assert await results(first + others) == [14, 16, 18]
    assert [caller.result().batch.batch_size for caller in first + others] == [1, 2, 2]
    assert all(caller.result().queue_s >= 0 for caller in others)


async def test_two_instances_share_one_queue(bench: Bench) -> None:
    one, two = Instance(), Instance()
    batcher = bench.batcher(one, two, max_batch_size=2)
    callers = call(batcher, 0, 1, 2, 3, 4, 5)
    batches = [await one.batch(), await two.batch()]
    assert sorted(batches) == [[0, 1], [2, 3]]
    two.finish()
    assert await two.batch() == [4, 5]
    assert one.idle
    two.finish()
    assert await results([callers[item] for item in (*batches[1], 4, 5)]) == [2 * i for i in (*batches[1], 4, 5)]
    one.finish()
    assert await results(callers) == [0, 2, 4, 6, 8, 10]


async def test_a_busy_instance_does_not_hold_back_an_idle_one(bench: Bench) -> None:
    one, two = Instance(), Instance()
    batcher = bench.batcher(one, two)
    first = call(batcher, 1)
    await settle()
    busy, idle = (one, two) if two.idle else (two, one)
    second = call(batcher, 2)
    assert await idle.batch() == [2]
    idle.finish()
    assert await results(second) == [4]
    busy.finish()
    assert await results(first) == [2]


async def test_a_batch_that_waits_is_begun_even_while_the_loop_is_busy(bench: Bench) -> None:
    begun = Event()

    class Telling(Instance):
        def run(self, items: Sequence[int]) -> BatchOutput[int]:
            if items == [2]:
                begun.set()
            return super().run(items)

    instance = Telling()
    batcher = bench.batcher(instance)
    callers = call(batcher, 1)
    await instance.batch()
    callers += call(batcher, 2)
    await settle()
    instance.finish()
    assert begun.wait(SOON_S)  # It blocks the loop.
    instance.finish()
    assert await results(callers) == [2, 4]


async def test_a_full_queue_refuses_at_once(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_queue_size=2)
    callers = call(batcher, 0)
    await instance.batch()
    callers += call(batcher, 1, 2)
    await settle()
    with pytest.raises(UnavailableError, match="maximum queue size: 2"):
        await batcher.submit(3)
    instance.finish(2)
    assert await results(callers) == [0, 2, 4]
    callers = call(batcher, 5)
    instance.finish()
    assert await results(callers) == [10]


async def test_abandoned_items_do_not_fill_the_queue(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_queue_size=2)
    callers = call(batcher, 0)
    await instance.batch()
    abandoned = call(batcher, 1, 2)
    await settle()
    for caller in abandoned:
        caller.cancel()
    await settle()
    callers += call(batcher, 3, 4)
    await settle()
    with pytest.raises(UnavailableError):
        await batcher.submit(5)
    instance.finish()
    assert await instance.batch() == [3, 4]
    instance.finish()
    assert await results(callers) == [0, 6, 8]


async def test_refusals_go_through_the_queue_only_where_somebody_has_left_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_queue_size=2)
    callers = call(batcher, 0)
    await instance.batch()
    callers += call(batcher, 1)
    (leaving,) = call(batcher, 2)
    await settle()
    drop, times = batcher._drop_abandoned, 0

    def counted() -> None:
        nonlocal times
        times += 1
        drop()

    monkeypatch.setattr(batcher, "_drop_abandoned", counted)

    def refused_thrice() -> None:
        for _ in range(3):
            with pytest.raises(QueueFullError):
                batcher.require_room()

    refused_thrice()
    assert times == 0
    leaving.cancel()
    await settle()
    callers += call(batcher, 3)
    await settle()
    refused_thrice()
    assert times == 1
    instance.finish(2)
    assert await results(callers) == [0, 2, 6]


async def test_a_cancelled_caller_costs_no_inference(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    callers = call(batcher, 0)
    await instance.batch()
    kept, cancelled, kept_too = call(batcher, 1, 2, 3)
    await settle()
    cancelled.cancel()
    await settle()
    instance.finish()
    assert await instance.batch() == [1, 3]
    instance.finish()
    assert await results([*callers, kept, kept_too]) == [0, 2, 6]
    assert cancelled.cancelled()


async def test_a_caller_cancelled_during_inference_leaves_its_neighbours_alone(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    callers = call(batcher, 0, 1, 2)
    assert await instance.batch() == [0, 1, 2]
    callers[1].cancel()
    instance.finish()
    assert await results([callers[0], callers[2]]) == [0, 4]
    assert callers[1].cancelled()


async def test_nothing_is_run_where_every_caller_has_gone(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    callers = call(batcher, 0)
    await instance.batch()
    gone = call(batcher, 1, 2)
    await settle()
    for caller in gone:
        caller.cancel()
    await settle()
    instance.finish()
    await results(callers)
    await settle()
    assert instance.idle
    callers = call(batcher, 3)
    assert await instance.batch() == [3]
    instance.finish()
    assert await results(callers) == [6]


async def test_a_deadline_that_has_passed_costs_no_inference(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    callers = call(batcher, 0)
    await instance.batch()
    with pytest.raises(DeadlineExceededError):
        await batcher.submit(1, time.monotonic() + 0.01)
    callers += call(batcher, 2)
    await settle()
    instance.finish()
    assert await instance.batch() == [2]
    instance.finish()
    assert await results(callers) == [0, 4]


async def test_a_deadline_in_the_past_is_refused_even_by_an_idle_batcher(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    with pytest.raises(DeadlineExceededError):
        await batcher.submit(1, time.monotonic() - 1)
    await settle()
    assert instance.idle


async def test_a_deadline_passes_during_inference(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    late = asyncio.create_task(batcher.submit(1, time.monotonic() + 0.05))
    assert await instance.batch() == [1]
    with pytest.raises(DeadlineExceededError):
        await late
    instance.finish()
    callers = call(batcher, 2)
    instance.finish()
    assert await results(callers) == [4]


async def test_an_exception_reaches_exactly_its_batch(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=2)
    failing = call(batcher, 1, 2)
    later = call(batcher, 3, 4)
    assert await instance.batch() == [1, 2]
    instance.failure = RuntimeError("the device is on fire")
    instance.finish()
    for caller in failing:
        with pytest.raises(InferenceError, match="the device is on fire"):
            await caller
    assert await instance.batch() == [3, 4]
    instance.failure = None
    instance.finish()
    assert await results(later) == [6, 8]
    assert [record.failed for record in bench.records] == [True, False]


@pytest.mark.parametrize("kind", [UnavailableError, DeadlineExceededError])
async def test_an_engine_that_is_away_or_late_is_no_failed_inference(bench: Bench, kind: type[FoveaError]) -> None:
    instance = Instance()
    instance.failure = kind("the engine is away")
    instance.finish()
    one, two = await asyncio.gather(*call(bench.batcher(instance), 1, 2), return_exceptions=True)
    assert [type(one), type(two)] == [kind, kind]
    assert str(one) == str(two) == "the engine is away"
    assert one is not two


async def test_each_caller_of_a_failed_batch_gets_an_exception_of_its_own(bench: Bench) -> None:
    instance = Instance()
    instance.failure = RuntimeError("no")
    instance.finish()
    callers = call(bench.batcher(instance), 1, 2)
    one, two = await asyncio.gather(*callers, return_exceptions=True)
    assert one is not two


@pytest.mark.parametrize("surplus", [1, -1])
async def test_the_wrong_number_of_results_fails_the_batch(bench: Bench, surplus: int) -> None:
    class Wrong(Instance):
        def run(self, items: Sequence[int]) -> BatchOutput[int]:
            output = super().run(items)
            return BatchOutput(([*output.results, 0])[: len(items) + surplus], 0, 0)

    instance = Wrong()
    instance.finish()
    for caller in call(bench.batcher(instance), 1, 2):
        with pytest.raises(InferenceError, match=f"{2 + surplus} results for a batch of 2"):
            await caller


async def test_a_delay_waits_for_a_fuller_batch(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=3, delay_s=1000)
    callers = call(batcher, 1)
    await settle()
    callers += call(batcher, 2)
    await settle()
    assert instance.idle
    callers += call(batcher, 3)
    assert await instance.batch() == [1, 2, 3]
    instance.finish()
    assert await results(callers) == [2, 4, 6]


async def test_a_delay_ends_without_a_full_batch(bench: Bench) -> None:
    instance = Instance()
    callers = call(bench.batcher(instance, max_batch_size=3, delay_s=0.01), 1, 2)
    assert await instance.batch() == [1, 2]
    instance.finish()
    assert await results(callers) == [2, 4]


async def test_a_delay_counts_from_the_oldest_arrival(bench: Bench) -> None:
    """What has waited that long already while the instance was busy is not made to wait again."""
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=3, delay_s=0.05)
    callers = call(batcher, 0, 1, 2)
    assert await instance.batch() == [0, 1, 2]
    submitted = time.monotonic()
    callers += call(batcher, 3)
    await asyncio.sleep(0.1)
    instance.finish()
    assert await instance.batch() == [3]
    instance.finish()
    assert await results(callers) == [0, 2, 4, 6]
    assert callers[3].result().queue_s <= time.monotonic() - submitted


async def test_close_runs_what_waits_and_refuses_what_is_new(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=2)
    callers = call(batcher, 0, 1, 2, 3, 4)
    await instance.batch()
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(UnavailableError, match="unloaded"):
        await batcher.submit(9)
    assert not closing.done()
    instance.finish(3)
    assert await results(callers) == [0, 2, 4, 6, 8]
    await asyncio.wait_for(closing, SOON_S)


async def test_close_does_not_wait_for_a_delay(bench: Bench) -> None:
    one, two = Instance(), Instance()
    batcher = bench.batcher(one, two, delay_s=1000)
    callers = call(batcher, 1)
    await settle()
    one.finish()
    two.finish()
    await asyncio.wait_for(batcher.close(), SOON_S)
    assert await results(callers) == [2]


async def test_close_of_an_idle_batcher_returns(bench: Bench) -> None:
    await asyncio.wait_for(bench.batcher(Instance(), Instance(), Instance()).close(), SOON_S)


async def test_many_callers_many_instances_nothing_lost_nothing_swapped(bench: Bench) -> None:
    class Prompt(Instance):
        def run(self, items: Sequence[int]) -> BatchOutput[int]:
            return BatchOutput([2 * item for item in items], 0, 0)

    batcher = bench.batcher(Prompt(), Prompt(), Prompt(), max_batch_size=7, max_queue_size=1000)
    assert await results(call(batcher, *range(1000))) == [2 * item for item in range(1000)]
    assert sum(record.batch_size for record in bench.records) == 1000
    assert max(record.batch_size for record in bench.records) == 7


async def test_a_batch_holds_no_more_rows_than_the_maximum(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=4)
    callers = [asyncio.create_task(batcher.submit(0))]
    await instance.batch()
    callers += [asyncio.create_task(batcher.submit(item, rows=rows)) for item, rows in [(1, 3), (2, 2), (3, 2), (4, 1)]]
    await settle()
    assert batcher.queue_depth == 8
    for expected in ([1], [2, 3], [4]):
        instance.finish()
        assert await instance.batch() == expected
    instance.finish()
    await results(callers)
    assert [record.batch_size for record in bench.records] == [1, 3, 4, 1]


async def test_an_item_larger_than_the_maximum_runs_alone(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance, max_batch_size=1)
    callers = [asyncio.create_task(batcher.submit(item, rows=5)) for item in (1, 2)]
    for expected in ([1], [2]):
        assert await instance.batch() == expected
        instance.finish()
    assert await results(callers) == [2, 4]


async def test_only_items_of_one_kind_share_a_batch(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    callers = call(batcher, 0)
    await instance.batch()
    callers += [asyncio.create_task(batcher.submit(item, kind=kind)) for item, kind in [(1, "a"), (2, "a"), (3, "b")]]
    await settle()
    instance.finish()
    assert await instance.batch() == [1, 2]
    instance.finish()
    assert await instance.batch() == [3]
    instance.finish()
    assert await results(callers) == [0, 2, 4, 6]


async def test_the_more_urgent_go_first(bench: Bench) -> None:
    instance = Instance()
    batcher = DynamicBatcher[int, int]([instance.run], max_batch_size=2, max_queue_size=10, priority_levels=3)
    callers = call(batcher, 0)
    await instance.batch()
    callers += [asyncio.create_task(batcher.submit(item, priority=item)) for item in (3, 2, 1)]
    await settle()
    instance.finish()
    assert await instance.batch() == [1, 2]
    instance.finish()
    assert await instance.batch() == [3]
    instance.finish()
    assert await results(callers) == [0, 6, 4, 2]
    await batcher.close()


async def test_too_long_in_the_queue_is_unavailable_and_costs_no_inference(bench: Bench) -> None:
    instance = Instance()
    batcher = bench.batcher(instance)
    (running,) = call(batcher, 1)
    await instance.batch()
    waiting = asyncio.create_task(batcher.submit(2, queue_timeout_s=0.01))
    with pytest.raises(UnavailableError, match="Request timeout expired"):
        await asyncio.wait_for(waiting, SOON_S)
    instance.finish()
    assert (await running).result == 2
    assert instance.idle


async def test_the_queue_timeout_ends_where_the_inference_begins(bench: Bench) -> None:
    instance = Instance()
    (caller,) = [asyncio.create_task(bench.batcher(instance).submit(4, queue_timeout_s=0.01))]
    await instance.batch()
    done, _ = await asyncio.wait({caller}, timeout=0.1)
    assert not done
    instance.finish()
    assert (await caller).result == 8
