"""Dynamic batching: many callers, each with one item; few instances, each running a batch at a time.

Knows no ONNX and no protocol. An item is one or more rows. Work-conserving: an idle instance takes
everything that waits, up to the maximum of rows, at once. A queue delay, where one is set, counts from
the arrival of the oldest item.

Items arrive and results leave in the event loop; batches are run in threads. A thread whose batch is
done takes the next one itself: an instance does not stand still until the loop has time for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from service.errors import DeadlineExceededError, FoveaError, InferenceError, QueueFullError, UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BatchOutput(Generic[Result]):
    """What an instance returns: one result for each item, in order, and where the time went."""

    results: Sequence[Result]
    assembly_s: float
    inference_s: float
    output_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that was run: its size in rows, and what each part took. `failed` when it raised."""

    batch_size: int
    assembly_s: float
    inference_s: float
    output_s: float = 0.0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Completed(Generic[Result]):
    """One item's result and its share of the story."""

    result: Result
    queue_s: float
    batch: BatchRecord


RunBatch = Callable[[Sequence[Item]], BatchOutput[Result]]
"""What an instance does with a batch; takes its time."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    rows: int
    kind: Hashable
    arrived: float
    deadline: float | None
    done: asyncio.Future[Completed[Result]]
    taken: bool = False

    def time_out(self) -> None:
        """It has waited for as long as it may; once an instance has it, that no longer counts."""
        if not self.taken and not self.done.done():
            self.done.set_exception(UnavailableError("Request timeout expired"))

    def expire(self) -> None:
        """Its deadline has come."""
        if not self.done.done():
            self.done.set_exception(DeadlineExceededError("the deadline passed before the result was there"))


def _failure(error: Exception) -> FoveaError:
    """What the failure of a batch is to one of its callers."""
    if isinstance(error, UnavailableError | DeadlineExceededError):
        return type(error)(str(error))
    return InferenceError(f"inference failed: {error}")


class DynamicBatcher(Generic[Item, Result]):
    """One bounded queue in front of a group of instances.

    Args:
        instances: each runs one batch at a time, in a thread.
        max_batch_size: most rows in a batch; 1: every item runs alone, however many rows it has.
        max_queue_size: most rows waiting; what would make it more is refused at once.
        max_queue_delay_s: how long an idle instance may wait for a fuller batch; 0: not at all.
        priority_levels: how many there are, 1 the most urgent; an item waits only for those as urgent.
        on_batch: told of every batch that was run.
    """

    def __init__(
        self,
        instances: Sequence[RunBatch[Item, Result]],
        *,
        max_batch_size: int,
        max_queue_size: int,
        max_queue_delay_s: float = 0.0,
        priority_levels: int = 1,
        on_batch: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._max_queue_delay_s = max_queue_delay_s
        self._on_batch = on_batch
        self._queues: list[deque[_Entry[Item, Result]]] = [deque() for _ in range(priority_levels)]
        self._waiting_rows = 0
        self._queue_lock = Lock()
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(len(instances), thread_name_prefix="instance")
        self._changed = asyncio.Event()
        self._forming = asyncio.Lock()
        self._closing = False
        self._instances = [asyncio.create_task(self._serve(run)) for run in instances]

    @property
    def queue_depth(self) -> int:
        """Rows that wait for an instance."""
        return self._waiting_rows

    async def submit(
        self,
        item: Item,
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
    ) -> Completed[Result]:
        """Wait for the item's result.

        A caller that is cancelled, or whose deadline (on `time.monotonic`'s clock) passes while the item
        waits, costs no inference.

        Args:
            rows: how much of a batch the item takes; at most the batcher's maximum, where items share a batch.
            kind: only items of the same kind share a batch.
            priority: 1 to the batcher's `priority_levels`.
            queue_timeout_s: longest time in the queue.

        Raises:
            QueueFullError: the queue is full.
            UnavailableError: the time in it was too long, or the batcher is closing.
            DeadlineExceededError: no result by the deadline.
            InferenceError: the batch failed, or gave the wrong number of results.
        """
        if self._closing:
            raise UnavailableError("the model is being unloaded")
        if self._waiting_rows and self._waiting_rows + rows > self._max_queue_size:
            self._drop_abandoned()
            if self._waiting_rows and self._waiting_rows + rows > self._max_queue_size:
                raise QueueFullError(f"Exceeds maximum queue size: {self._max_queue_size} rows are waiting")
        now = time.monotonic()
        entry = _Entry[Item, Result](item, rows, kind, now, deadline, self._loop.create_future())
        with self._queue_lock:
            self._queues[priority - 1].append(entry)
            self._waiting_rows += rows
        self._changed.set()
        timers = []
        if queue_timeout_s is not None:
            timers.append(self._loop.call_later(queue_timeout_s, entry.time_out))
        if deadline is not None:
            timers.append(self._loop.call_later(deadline - now, entry.expire))
        try:
            return await entry.done
        finally:
            for timer in timers:
                timer.cancel()

    async def close(self) -> None:
        """Refuse new items, run what waits, stop the instances."""
        self._closing = True
        self._changed.set()
        await asyncio.gather(*self._instances)
        self._threads.shutdown()

    def _drop_abandoned(self) -> None:
        with self._queue_lock:
            self._queues = [deque(entry for entry in queue if not entry.done.done()) for queue in self._queues]
            self._waiting_rows = sum(entry.rows for entry in self._entries())

    def _entries(self) -> Iterator[_Entry[Item, Result]]:
        """What waits, in the order in which it will be taken."""
        for queue in self._queues:
            yield from queue

    async def _serve(self, run_batch: RunBatch[Item, Result]) -> None:
        while batch := await self._next_batch():
            await self._loop.run_in_executor(self._threads, self._run, run_batch, batch)

    def _run(self, run_batch: RunBatch[Item, Result], batch: list[_Entry[Item, Result]]) -> None:
        """Run a batch, and then what waits by then; in a thread."""
        while batch:
            taken = time.monotonic()
            rows = sum(entry.rows for entry in batch)
            try:
                output = run_batch([entry.item for entry in batch])
                if len(output.results) != len(batch):
                    raise InferenceError(f"{len(output.results)} results for a batch of {len(batch)}")
            except Exception as error:
                record = BatchRecord(rows, 0.0, time.monotonic() - taken, failed=True)
                self._loop.call_soon_threadsafe(self._fail, batch, record, error)
            else:
                record = BatchRecord(rows, output.assembly_s, output.inference_s, output.output_s)
                self._loop.call_soon_threadsafe(self._complete, batch, record, output.results, taken)
            batch = [] if self._max_queue_delay_s else self._take()

    def _complete(
        self, batch: list[_Entry[Item, Result]], record: BatchRecord, results: Sequence[Result], taken: float
    ) -> None:
        self._on_batch(record)
        for entry, result in zip(batch, results, strict=True):
            if not entry.done.done():
                entry.done.set_result(Completed(result, taken - entry.arrived, record))

    def _fail(self, batch: list[_Entry[Item, Result]], record: BatchRecord, error: Exception) -> None:
        self._on_batch(record)
        for entry in batch:
            if not entry.done.done():
                failure = _failure(error)
                # Its traceback holds the batch.
                failure.__cause__ = error.with_traceback(None)
                entry.done.set_exception(failure)

    async def _next_batch(self) -> list[_Entry[Item, Result]]:
        """What waits, oldest first; empty when the batcher is closing and nothing is left."""
        async with self._forming:
            while True:
                while not self._waiting_rows:
                    if self._closing:
                        return []
                    self._changed.clear()
                    await self._changed.wait()
                if self._max_queue_delay_s:
                    oldest = min(entry.arrived for entry in self._entries())
                    await self._fill_until(oldest + self._max_queue_delay_s)
                if batch := self._take():
                    return batch

    async def _fill_until(self, moment: float) -> None:
        try:
            async with asyncio.timeout(moment - time.monotonic()):
                while self._waiting_rows < self._max_batch_size and not self._closing:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Entry[Item, Result]]:
        """What waits and fits in a batch; empty where nothing does."""
        now = time.monotonic()
        batch: list[_Entry[Item, Result]] = []
        rows = 0
        with self._queue_lock:
            for queue in self._queues:
                while queue:
                    entry = queue[0]
                    expired = entry.deadline is not None and entry.deadline <= now
                    # An expired entry's caller is told by its own timer, due at the same moment.
                    if not (entry.done.done() or expired):
                        if batch and (rows + entry.rows > self._max_batch_size or entry.kind != batch[0].kind):
                            return batch
                        entry.taken = True
                        batch.append(entry)
                        rows += entry.rows
                    queue.popleft()
                    self._waiting_rows -= entry.rows
        return batch
