"""Dynamic batching: many callers, each with one item; few instances, each running a batch at a time.

Knows no ONNX and no protocol. An item is one or more rows. Work-conserving: idle instances share what
waits, at once, and one that has finished takes everything that waits; up to the maximum of rows. A queue
delay, where one is set, counts from the arrival of the oldest item.

Items arrive and results leave in the event loop; batches are run in threads. A thread whose batch is
done takes the next one itself: an instance does not stand still until the loop has time for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, Protocol, TypeVar

from service.errors import DeadlineExceededError, FoveaError, InferenceError, QueueFullError, UnavailableError
from service.trace_context import TraceContext, of_batch, trace_context

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


class Waiter(Protocol[Result]):
    """Who waits for an item's result: a future, or what is as one. All of it is called in the event loop's thread, and
    `done` from others too."""

    def done(self) -> bool:
        """Whether it waits no more: it was told, or has gone."""

    def set_result(self, result: Completed[Result], /) -> None: ...

    def set_exception(self, error: FoveaError, /) -> None: ...


class Timed(Protocol):
    """An item that waits, or is on its way, as its caller sees it."""

    def forget_time(self) -> None:
        """It is over: nothing is left to be timed."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Result]):
    """An item in the queue, or on its way through an instance.

    Attributes:
        lock: the queue's.
        on_abandoned: told when it is over before an instance has taken it.
        unused: told once its batch is over.
    """

    item: Item
    rows: int
    kind: Hashable
    arrived: float
    deadline: float | None
    waiter: Waiter[Result]
    trace: TraceContext | None
    lock: Lock
    on_abandoned: Callable[[], None]
    taken: bool = False
    timers: tuple[asyncio.TimerHandle, ...] = ()
    unused: Callable[[], None] | None = None

    def time_out(self) -> None:
        """It has waited for as long as it may; once an instance has it, that no longer counts."""
        if not self.taken and not self.waiter.done():
            self.waiter.set_exception(UnavailableError("Request timeout expired"))

    def expire(self) -> None:
        """Its deadline has come."""
        if not self.waiter.done():
            self.waiter.set_exception(DeadlineExceededError("the deadline passed before the result was there"))

    def forget_time(self) -> None:
        """It is over: nothing is left to be timed."""
        for timer in self.timers:
            timer.cancel()
        if not self.taken:
            self.on_abandoned()

    def when_unused(self, tell: Callable[[], None]) -> None:
        """Say once no instance reads the item, nor will: now, or when its batch is over. Its waiter is done by now."""
        with self.lock:
            if self.taken:
                self.unused = tell
                return
        tell()


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
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self._max_queue_delay_s = max_queue_delay_s
        self._on_batch = on_batch
        self._queues: list[deque[Entry[Item, Result]]] = [deque() for _ in range(priority_levels)]
        self._waiting_rows = 0
        self._any_abandoned = False
        self._queue_lock = Lock()
        self._loop = asyncio.get_running_loop()
        self._waking = False
        self._delay: asyncio.TimerHandle | None = None
        self._closing = False
        self._at_rest = asyncio.Event()
        self._instances = [_Instance(self._work, run) for run in instances]
        self._idle = deque(self._instances)

    @property
    def queue_depth(self) -> int:
        """Rows that wait for an instance."""
        return self._waiting_rows

    @property
    def waiting(self) -> int:
        """Items that wait for an instance."""
        return sum(map(len, self._queues))

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
        future: asyncio.Future[Completed[Result]] = self._loop.create_future()
        entry = self.enqueue(
            item,
            future,
            deadline,
            rows=rows,
            kind=kind,
            priority=priority,
            queue_timeout_s=queue_timeout_s,
            trace=trace_context.get(),
        )
        try:
            return await future
        finally:
            entry.forget_time()

    def require_room(self, rows: int = 1) -> None:
        """Raises:
        QueueFullError: an item of so many rows would be refused now.
        """
        if self._waiting_rows and self._waiting_rows + rows > self.max_queue_size:
            # Refusals must stay cheap: the queue is gone through only where somebody has left it.
            if self._any_abandoned:
                self._drop_abandoned()
            if self._waiting_rows and self._waiting_rows + rows > self.max_queue_size:
                raise QueueFullError(f"Exceeds maximum queue size: {self.max_queue_size} rows are waiting")

    def enqueue(
        self,
        item: Item,
        waiter: Waiter[Result],
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
        trace: TraceContext | None = None,
    ) -> Entry[Item, Result]:
        """Put an item in the queue, for a waiter that is told how it fared, and lets its entry forget the time then.

        Args:
            deadline, rows, kind, priority, queue_timeout_s: as for `submit`.
            trace: what the item is part of.

        Raises:
            QueueFullError, UnavailableError: as `submit`, at once.
        """
        if self._closing:
            raise UnavailableError("the model is being unloaded")
        self.require_room(rows)
        now = time.monotonic()
        entry = Entry(item, rows, kind, now, deadline, waiter, trace, self._queue_lock, self._on_abandoned)
        with self._queue_lock:
            self._queues[priority - 1].append(entry)
            self._waiting_rows += rows
        self._wake_soon()
        if queue_timeout_s is not None:
            entry.timers += (self._loop.call_later(queue_timeout_s, entry.time_out),)
        if deadline is not None:
            entry.timers += (self._loop.call_later(deadline - now, entry.expire),)
        return entry

    async def close(self) -> None:
        """Refuse new items, run what waits, stop the instances."""
        self._closing = True
        self._wake()
        if len(self._idle) < len(self._instances):
            await self._at_rest.wait()
        for instance in self._instances:
            instance.stop()

    def _on_abandoned(self) -> None:
        self._any_abandoned = True

    def _drop_abandoned(self) -> None:
        self._any_abandoned = False
        with self._queue_lock:
            self._queues = [deque(entry for entry in queue if not entry.waiter.done()) for queue in self._queues]
            self._waiting_rows = sum(entry.rows for entry in self._entries())

    def _entries(self) -> Iterator[Entry[Item, Result]]:
        """What waits, in the order in which it will be taken."""
        for queue in self._queues:
            yield from queue

    def _wake_soon(self) -> None:
        """Once for all that arrives at this moment."""
        if self._idle and self._waiting_rows and not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Give what waits to idle instances."""
        self._waking = False
        if self._delay:
            self._delay.cancel()
            self._delay = None
        while self._idle and self._waiting_rows:
            if (wait_s := self._fills_for_s()) > 0:
                self._delay = self._loop.call_later(wait_s, self._wake)
                return
            if batch := self._take(self._share_of_idle()):
                self._idle.popleft().begin(batch)

    def _share_of_idle(self) -> int:
        """The most rows for the next idle instance: several share what waits, so that all of them work on it at once.
        Whoever sets a queue delay wants large batches instead."""
        if self._max_queue_delay_s:
            return self.max_batch_size
        return min(self.max_batch_size, -(-self._waiting_rows // len(self._idle)))

    def _fills_for_s(self) -> float:
        """How long the next batch may still wait for more."""
        if not self._max_queue_delay_s or self._closing or self._waiting_rows >= self.max_batch_size:
            return 0.0
        oldest = min(queue[0].arrived for queue in self._queues if queue)
        return oldest + self._max_queue_delay_s - time.monotonic()

    def _rest(self, instance: _Instance[Item, Result]) -> None:
        """An instance has nothing to do."""
        self._idle.append(instance)
        if self._closing:
            self._wake()
            if len(self._idle) == len(self._instances):
                self._at_rest.set()
        else:
            self._wake_soon()

    def _work(self, instance: _Instance[Item, Result], batch: list[Entry[Item, Result]]) -> None:
        """Run a batch, and then what waits by then; in the instance's thread."""
        while batch:
            taken = time.monotonic()
            rows = sum(entry.rows for entry in batch)
            trace_context.set(of_batch([entry.trace for entry in batch]))
            try:
                output = instance.run([entry.item for entry in batch])
                if len(output.results) != len(batch):
                    raise InferenceError(f"{len(output.results)} results for a batch of {len(batch)}")
            except Exception as error:
                record = BatchRecord(rows, 0.0, time.monotonic() - taken, failed=True)
                self._loop.call_soon_threadsafe(self._fail, batch, record, error)
            else:
                record = BatchRecord(rows, output.assembly_s, output.inference_s, output.output_s)
                self._loop.call_soon_threadsafe(self._complete, batch, record, output.results, taken)
            batch = [] if self._max_queue_delay_s else self._take(self.max_batch_size)
        self._loop.call_soon_threadsafe(self._rest, instance)

    def _complete(
        self, batch: list[Entry[Item, Result]], record: BatchRecord, results: Sequence[Result], taken: float
    ) -> None:
        self._on_batch(record)
        for entry, result in zip(batch, results, strict=True):
            if not entry.waiter.done():
                entry.waiter.set_result(Completed(result, taken - entry.arrived, record))
            if entry.unused:
                entry.unused()

    def _fail(self, batch: list[Entry[Item, Result]], record: BatchRecord, error: Exception) -> None:
        self._on_batch(record)
        for entry in batch:
            if not entry.waiter.done():
                failure = _failure(error)
                # Its traceback holds the batch.
                failure.__cause__ = error.with_traceback(None)
                entry.waiter.set_exception(failure)
            if entry.unused:
                entry.unused()

    def _take(self, max_rows: int) -> list[Entry[Item, Result]]:
        """What waits and fits in a batch of so many rows, or one item; empty where nothing waits."""
        now = time.monotonic()
        batch: list[Entry[Item, Result]] = []
        rows = 0
        with self._queue_lock:
            for queue in self._queues:
                while queue:
                    entry = queue[0]
                    expired = entry.deadline is not None and entry.deadline <= now
                    # An expired entry's caller is told by its own timer, due at the same moment.
                    if not (entry.waiter.done() or expired):
                        if batch and (rows + entry.rows > max_rows or entry.kind != batch[0].kind):
                            return batch
                        entry.taken = True
                        batch.append(entry)
                        rows += entry.rows
                    queue.popleft()
                    self._waiting_rows -= entry.rows
        return batch


class _Instance(Generic[Item, Result]):
    """One instance's thread, which sleeps until it is given a batch.

    Args:
        work: what it does with one.
    """

    def __init__(
        self,
        work: Callable[[_Instance[Item, Result], list[Entry[Item, Result]]], None],
        run: RunBatch[Item, Result],
    ) -> None:
        self.run = run
        self._work = work
        self._batches: SimpleQueue[list[Entry[Item, Result]] | None] = SimpleQueue()
        # A thread that hangs does not keep the process from ending.
        self._thread = Thread(target=self._serve, name="instance", daemon=True)
        self._thread.start()

    def begin(self, batch: list[Entry[Item, Result]]) -> None:
        self._batches.put(batch)

    def stop(self) -> None:
        """End the thread; idle by then."""
        self._batches.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._batches.get():
            self._work(self, batch)
            del batch  # It would keep the tensors until the next one.
