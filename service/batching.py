"""Dynamic batching: many callers, each with one item; few instances, each running a batch at a time.

Pure asyncio; knows no ONNX and no protocol. Work-conserving: an idle instance takes everything that
waits, up to the maximum, at once. A queue delay, where one is set, counts from the arrival of the
oldest item.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.errors import DeadlineExceededError, InferenceError, UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)


@dataclass(frozen=True, slots=True)
class BatchOutput(Generic[Result]):
    """What an instance returns: one result for each item, in order, and where the time went."""

    results: Sequence[Result]
    assembly_s: float
    inference_s: float


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that was run. `failed` when it raised."""

    batch_size: int
    assembly_s: float
    inference_s: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Completed(Generic[Result]):
    """One item's result and its share of the story."""

    result: Result
    queue_s: float
    batch: BatchRecord


class RunBatch(Protocol[Given, Result]):
    def __call__(self, items: Sequence[Given], /) -> Awaitable[BatchOutput[Result]]: ...


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    arrived: float
    deadline: float | None
    done: asyncio.Future[Completed[Result]]


class DynamicBatcher(Generic[Item, Result]):
    """One bounded queue in front of a group of instances.

    Args:
        instances: each runs one batch at a time.
        max_batch_size: most items in a batch.
        max_queue_size: most items waiting; one more is refused at once.
        max_queue_delay_s: how long an idle instance may wait for a fuller batch; 0: not at all.
        on_batch: told of every batch that was run.
    """

    def __init__(
        self,
        instances: Sequence[RunBatch[Item, Result]],
        *,
        max_batch_size: int,
        max_queue_size: int,
        max_queue_delay_s: float = 0.0,
        on_batch: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._max_queue_delay_s = max_queue_delay_s
        self._on_batch = on_batch
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._changed = asyncio.Event()
        self._forming = asyncio.Lock()
        self._closing = False
        self._instances = [asyncio.create_task(self._serve(run)) for run in instances]

    @property
    def queue_depth(self) -> int:
        """Items that wait for an instance."""
        return len(self._queue)

    async def submit(self, item: Item, deadline: float | None = None) -> Completed[Result]:
        """Wait for the item's result.

        A caller that is cancelled, or whose deadline (on `time.monotonic`'s clock) passes while the item
        waits, costs no inference.

        Raises:
            UnavailableError: the queue is full, or the batcher is closing.
            DeadlineExceededError: no result by the deadline.
            InferenceError: the batch failed, or gave the wrong number of results.
        """
        if self._closing:
            raise UnavailableError("the model is being unloaded")
        if len(self._queue) >= self._max_queue_size:
            self._drop_abandoned()
            if len(self._queue) >= self._max_queue_size:
                raise UnavailableError(f"Exceeds maximum queue size: {self._max_queue_size} images are waiting")
        now = time.monotonic()
        entry = _Entry[Item, Result](item, now, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._changed.set()
        if deadline is None:
            return await entry.done
        try:
            async with asyncio.timeout(deadline - now):
                return await entry.done
        except TimeoutError:
            raise DeadlineExceededError("the deadline passed before the result was there") from None

    async def close(self) -> None:
        """Refuse new items, run what waits, stop the instances."""
        self._closing = True
        self._changed.set()
        await asyncio.gather(*self._instances)

    def _drop_abandoned(self) -> None:
        self._queue = deque(entry for entry in self._queue if not entry.done.done())

    async def _serve(self, run_batch: RunBatch[Item, Result]) -> None:
        while batch := await self._next_batch():
            taken = time.monotonic()
            try:
                output = await run_batch([entry.item for entry in batch])
                if len(output.results) != len(batch):
                    raise InferenceError(f"{len(output.results)} results for a batch of {len(batch)}")
            except Exception as error:
                self._on_batch(BatchRecord(len(batch), 0.0, time.monotonic() - taken, failed=True))
                for entry in batch:
                    if not entry.done.done():
                        failure = InferenceError(f"inference failed: {error}")
                        failure.__cause__ = error
                        entry.done.set_exception(failure)
                continue
            record = BatchRecord(len(batch), output.assembly_s, output.inference_s)
            self._on_batch(record)
            for entry, result in zip(batch, output.results, strict=True):
                if not entry.done.done():
                    entry.done.set_result(Completed(result, taken - entry.arrived, record))

    async def _next_batch(self) -> list[_Entry[Item, Result]]:
        """What waits, oldest first; empty when the batcher is closing and nothing is left."""
        async with self._forming:
            while True:
                while not self._queue:
                    if self._closing:
                        return []
                    self._changed.clear()
                    await self._changed.wait()
                if self._max_queue_delay_s:
                    await self._fill_until(self._queue[0].arrived + self._max_queue_delay_s)
                if batch := self._take():
                    return batch

    async def _fill_until(self, moment: float) -> None:
        try:
            async with asyncio.timeout(moment - time.monotonic()):
                while len(self._queue) < self._max_batch_size and not self._closing:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Entry[Item, Result]]:
        now = time.monotonic()
        batch: list[_Entry[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch_size:
            entry = self._queue.popleft()
            expired = entry.deadline is not None and entry.deadline <= now
            # An expired entry's caller is told by its own timer, due at the same moment.
            if not entry.done.done() and not expired:
                batch.append(entry)
        return batch
