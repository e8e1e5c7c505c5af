"""The engine's side of inference: one front's requests, put in the queues of the versions that they are for."""

from __future__ import annotations

import math
import mmap
import pickle
import time
from asyncio import CancelledError
from functools import partial

from service.batching import Completed, Entry
from service.errors import FoveaError, QueueFullError
from service.fronts.layouts import ReceivedLayouts, SentLayouts
from service.fronts.link import Handler, Link, error_words
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
from service.loading import ServedVersion
from service.tensors import Tensors
from service.trace_context import TraceContext


class FrontRequest:
    """A front's request in a queue: who waits for its result."""

    __slots__ = ("_number", "_over", "_requests", "_served", "_start", "entry")

    def __init__(self, requests: FrontRequests, number: int, served: ServedVersion, start: float) -> None:
        self._requests = requests
        self._number = number
        self._served = served
        self._start = start
        self._over = False
        self.entry: Entry[Tensors, Tensors] | None = None

    def done(self) -> bool:
        return self._over

    def set_result(self, completed: Completed[Tensors], /) -> None:
        self._served.statistics.on_success(time.monotonic() - self._start, completed.queue_s, completed.batch)
        self._end()
        self._requests.answer(self._number, self._served, completed)

    def set_exception(self, error: FoveaError, /) -> None:
        self._served.statistics.on_failure(time.monotonic() - self._start, error)
        self._end()
        self._requests.fail(self._number, self._served, error)
        self._release()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._served.statistics.on_failure(time.monotonic() - self._start, CancelledError())
        self._end()
        self._release()

    def _end(self) -> None:
        self._over = True
        if self.entry:
            self.entry.forget_time()
        self._requests.forget(self._number)

    def _release(self) -> None:
        """Its place in the arena is free once no batch is made of what lies there."""
        release = partial(self._requests.release, self._number)
        if self.entry:
            self.entry.when_unused(release)
        else:
            release()


class FrontRequests:
    """Those of one front.

    Args:
        memory: its arena.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self.link: Link
        self._memory = memory
        self._served: dict[int, ServedVersion] = {}
        self._requests: dict[int, FrontRequest] = {}
        self._trace: TraceContext | None = None
        """Of the next request."""
        self._sent = SentLayouts(lambda body: self.link.send(LAYOUT, body))
        self._received = ReceivedLayouts()

    def handlers(self) -> dict[int, Handler]:
        return {
            LAYOUT: self._received.take,
            TRACE: self._on_trace,
            INFER: self._on_infer,
            CANCEL: self._on_cancel,
            REFUSED: self._on_refused,
            WITHDRAWN: self._on_withdrawn,
        }

    def offer(self, number: int, served: ServedVersion) -> None:
        """The front is about to know a version; it goes on serving until the front has no more requests for it.

        To one that has gone nothing is offered: it would never give it back.
        """
        if number not in self._served and not self.link.lost:
            served.acquire()
            self._served[number] = served

    def lost(self) -> None:
        """The front has gone: nobody waits for what it asked."""
        for request in list(self._requests.values()):
            request.cancel()
        for served in self._served.values():
            served.release()
        self._served.clear()

    def answer(self, number: int, served: ServedVersion, completed: Completed[Tensors]) -> None:
        layout, batch = self._sent.of(completed.result), completed.batch
        self.link.send(
            RESULT,
            RESULT_HEAD.pack(
                number,
                served.batcher.queue_depth,
                layout.number,
                batch.batch_size,
                completed.queue_s,
                batch.assembly_s,
                batch.inference_s,
                batch.output_s,
            ),
            layout.pack(completed.result),
        )

    def fail(self, number: int, served: ServedVersion, error: FoveaError) -> None:
        head = FAILURE_HEAD.pack(number, served.batcher.queue_depth)
        self.link.send(FAILURE, head, pickle.dumps(error_words(error)))

    def release(self, number: int) -> None:
        self.link.send(RELEASED, NUMBER.pack(number))

    def forget(self, number: int) -> None:
        self._requests.pop(number, None)

    def _on_trace(self, body: memoryview) -> None:
        self._trace = pickle.loads(body)

    def _on_infer(self, body: memoryview) -> None:
        number, version, layout_number, offset, rows, priority, start, deadline, timeout_s = INFER_HEAD.unpack_from(
            body
        )
        served, layout = self._served[version], self._received[layout_number]
        item = layout.unpack(body[INFER_HEAD.size :]) if offset == INLINE else layout.read(self._memory, offset)
        trace, self._trace = self._trace, None
        request = self._requests[number] = FrontRequest(self, number, served, start)
        try:
            entry = served.batcher.enqueue(
                item,
                request,
                None if math.isnan(deadline) else deadline,
                rows=rows,
                kind=served.kind(item),
                priority=priority,
                queue_timeout_s=None if math.isnan(timeout_s) else timeout_s,
                trace=trace,
            )
        except FoveaError as error:
            request.set_exception(error)
        else:
            assert isinstance(entry, Entry)
            request.entry = entry

    def _on_cancel(self, body: memoryview) -> None:
        request = self._requests.get(NUMBER.unpack(body)[0])
        if request:
            request.cancel()

    def _on_refused(self, body: memoryview) -> None:
        served = self._served[NUMBER.unpack(body)[0]]
        served.statistics.on_failure(0.0, QueueFullError("refused by its front"))

    def _on_withdrawn(self, body: memoryview) -> None:
        served = self._served.pop(NUMBER.unpack(body)[0], None)
        if served:
            served.release()
