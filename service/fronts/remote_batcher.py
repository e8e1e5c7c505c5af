"""A front's side of inference: a batcher for each version, whose queue and instances are the engine's."""

from __future__ import annotations

import asyncio
import math
import pickle
import time
from collections.abc import Hashable
from itertools import count

from service.batching import BatchRecord, Completed, Waiter
from service.errors import QueueFullError, UnavailableError
from service.fronts.arena import Arena
from service.fronts.layouts import ReceivedLayouts, SentLayouts
from service.fronts.link import Handler, Link, error_of
from service.fronts.messages import (
    CANCEL,
    FAILURE,
    FAILURE_HEAD,
    INFER,
    INFER_HEAD,
    INLINE,
    LAYOUT,
    NUMBER,
    REFUSED,
    RELEASED,
    RESULT,
    RESULT_HEAD,
    TRACE,
    WITHDRAWN,
)
from service.tensors import Tensors
from service.trace_context import TraceContext, trace_context


class RemoteEntry:
    """A request that the engine has.

    Attributes:
        over: whether its waiter was told, or has gone.
    """

    __slots__ = ("_requests", "batcher", "number", "offset", "over", "size_bytes", "waiter")

    def __init__(
        self,
        requests: RemoteRequests,
        number: int,
        batcher: RemoteBatcher,
        waiter: Waiter[Tensors],
        offset: int,
        size_bytes: int,
    ) -> None:
        self._requests = requests
        self.number = number
        self.batcher = batcher
        self.waiter = waiter
        self.offset = offset
        self.size_bytes = size_bytes
        self.over = False

    def forget_time(self) -> None:
        """It is over: where the engine still has it, nobody waits."""
        self._requests.cancel(self)


class RemoteRequests:
    """Every request of this front that the engine has.

    Args:
        arena: where their tensors are, as long as there is room; else they go through the socket.
    """

    def __init__(self, arena: Arena) -> None:
        self.link: Link
        self._arena = arena
        self._numbers = count()
        self._entries: dict[int, RemoteEntry] = {}
        self._sent = SentLayouts(lambda body: self.link.send(LAYOUT, body))
        self._received = ReceivedLayouts()

    def handlers(self) -> dict[int, Handler]:
        return {
            LAYOUT: self._received.take,
            RESULT: self._on_result,
            FAILURE: self._on_failure,
            RELEASED: self._on_released,
        }

    def begin(
        self,
        batcher: RemoteBatcher,
        item: Tensors,
        waiter: Waiter[Tensors],
        deadline: float | None,
        rows: int,
        priority: int,
        queue_timeout_s: float | None,
        trace: TraceContext | None,
    ) -> RemoteEntry:
        """Send a request to the engine."""
        if self.link.lost:
            raise UnavailableError("the service is stopping")
        if trace:
            self.link.send(TRACE, pickle.dumps(trace))
        layout = self._sent.of(item)
        place = None if layout.objects else self._arena.place(layout.size_bytes)
        number = next(self._numbers)
        head = INFER_HEAD.pack(
            number,
            batcher.number,
            layout.number,
            INLINE if place is None else place,
            rows,
            priority,
            time.monotonic(),
            math.nan if deadline is None else deadline,
            math.nan if queue_timeout_s is None else queue_timeout_s,
        )
        if place is None:
            self.link.send(INFER, head, layout.pack(item))
        else:
            layout.write(self._arena.memory, place, item)
            self.link.send(INFER, head)
        entry = RemoteEntry(
            self, number, batcher, waiter, INLINE if place is None else place, 0 if place is None else layout.size_bytes
        )
        self._entries[number] = entry
        batcher.waiting += 1
        return entry

    def cancel(self, entry: RemoteEntry) -> None:
        """Nobody waits for it. Its tensors' place is free once the engine has said that it reads them no more."""
        if self._leave(entry):
            self.link.send(CANCEL, NUMBER.pack(entry.number))

    def refused(self, version_number: int) -> None:
        """A request for a version was not let in; the engine counts it."""
        self.link.send(REFUSED, NUMBER.pack(version_number))

    def withdrawn(self, version_number: int) -> None:
        """This front has no more requests for a version."""
        self.link.send(WITHDRAWN, NUMBER.pack(version_number))

    def lost(self) -> None:
        """The engine has gone, with all that it had."""
        for number, entry in list(self._entries.items()):
            if self._leave(entry) and not entry.waiter.done():
                entry.waiter.set_exception(UnavailableError("the service is stopping"))
            self._end(number)

    def _on_result(self, body: memoryview) -> None:
        number, depth, layout, batch_size, queue_s, assembly_s, inference_s, output_s = RESULT_HEAD.unpack_from(body)
        entry = self._end(number)
        entry.batcher.told_depth = depth
        if self._leave(entry) and not entry.waiter.done():
            outputs = self._received[layout].unpack(body[RESULT_HEAD.size :])
            record = BatchRecord(batch_size, assembly_s, inference_s, output_s)
            entry.waiter.set_result(Completed(outputs, queue_s, record))

    def _on_failure(self, body: memoryview) -> None:
        number, depth = FAILURE_HEAD.unpack_from(body)
        entry = self._entries[number]
        entry.batcher.told_depth = depth
        if self._leave(entry) and not entry.waiter.done():
            entry.waiter.set_exception(error_of(pickle.loads(body[FAILURE_HEAD.size :])))

    def _on_released(self, body: memoryview) -> None:
        self._end(NUMBER.unpack(body)[0])

    def _leave(self, entry: RemoteEntry) -> bool:
        """Nobody waits for it any more; whether somebody did."""
        if entry.over:
            return False
        entry.over = True
        entry.batcher.waiting -= 1
        return True

    def _end(self, number: int) -> RemoteEntry:
        """The engine has let go of it."""
        entry = self._entries.pop(number)
        if entry.offset != INLINE:
            self._arena.free(entry.offset, entry.size_bytes)
        return entry


class RemoteBatcher:
    """As a `DynamicBatcher`, for a version that the engine serves.

    Args:
        number: the version's, between this front and the engine.
        max_batch_size: most rows in a batch.
        max_queue_size: most rows that may wait, of all fronts together.

    Attributes:
        told_depth: rows that waited for an instance when the engine last answered.
        waiting: requests of this front that wait for the engine's answer.
    """

    def __init__(self, requests: RemoteRequests, number: int, *, max_batch_size: int, max_queue_size: int) -> None:
        self._requests = requests
        self.number = number
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self.told_depth = 0
        self.waiting = 0

    @property
    def queue_depth(self) -> int:
        """Rows that wait for an instance, as far as this front knows.

        With no request of its own at the engine it knows of none: no answer is on its way that would say how many.
        """
        return self.told_depth if self.waiting else 0

    async def submit(
        self,
        item: Tensors,
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
    ) -> Completed[Tensors]:
        """As `DynamicBatcher.submit`."""
        future: asyncio.Future[Completed[Tensors]] = asyncio.get_running_loop().create_future()
        trace = trace_context.get()
        entry = self._requests.begin(self, item, future, deadline, rows, priority, queue_timeout_s, trace)
        try:
            return await future
        finally:
            entry.forget_time()

    def enqueue(
        self,
        item: Tensors,
        waiter: Waiter[Tensors],
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
        trace: TraceContext | None = None,
    ) -> RemoteEntry:
        """As `DynamicBatcher.enqueue`; a full queue is the waiter's to hear."""
        return self._requests.begin(self, item, waiter, deadline, rows, priority, queue_timeout_s, trace)

    def require_room(self, rows: int = 1) -> None:
        """As `DynamicBatcher.require_room`, of the queue as far as this front knows it."""
        if self.queue_depth and self.queue_depth + rows > self.max_queue_size:
            self._requests.refused(self.number)
            raise QueueFullError(f"Exceeds maximum queue size: {self.max_queue_size} rows are waiting")

    async def close(self) -> None:
        """Tell the engine that nothing more comes."""
        self._requests.withdrawn(self.number)
