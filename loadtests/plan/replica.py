"""One replica of the service, simulated: its event loop, its queue and batcher, its instances, its cores.

The rules are those of `service/batching.py`, for requests of one kind and one priority:

- idle instances share what waits, oldest first, and one that has finished takes everything that waits, up to the
  maximum of rows; nothing is skipped that does not fit; where there is a queue delay an idle instance waits for a full
  batch until so long after the oldest arrival;
- what would make the queue longer than its maximum is refused at once, unless nothing waits;
- what is past its deadline, or belongs to a request that has failed, is left out of the batch, and counts as waiting
  until it is found;
- of one request, no more images than the maximum batch size are decoded or queued at a time.

What it assumes of the machine: the event loop is one server, first come first served, which every request visits before
the queue and after its inference. It works in passes: what is there when it is done with one is its next, and batches
for idle instances are formed between two. An instance that has finished takes its next batch itself, but where there is
a queue delay or nothing waits: then it waits for its turn there too. A thread that runs (the loop's, one
that decodes, an instance's) takes a core; where more run than there are cores, all are slowed down alike. The time of a
batch does not depend on the one before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

LOOP, DECODER, INSTANCE = range(3)


@dataclass(frozen=True, slots=True)
class Setup:
    """A replica. Times of work are those on a whole core.

    Attributes:
        tensors: whether the images of a request are one tensor, whose rows go into the same batch.
        cores: shared by everything that runs; None: as many as needed.
        timeout_s: longest time for a request.
        transport_s: work for a request: half before its images are decoded, half after.
        decode_s, postprocessing_s: work for an image.
        decode_threads: 0: the loop decodes.
    """

    max_batch_size: int
    instances: int = 1
    max_queue_size: int = 1024
    max_queue_delay_s: float = 0.0
    tensors: bool = False
    cores: int | None = None
    timeout_s: float = 30.0
    transport_s: float = 0.0
    decode_s: float = 0.0
    postprocessing_s: float = 0.0
    decode_threads: int = 0

    def front_s(self, images: int) -> float:
        """Work for a request with so many images that is no inference."""
        return self.transport_s + images * (self.decode_s + self.postprocessing_s)


@dataclass(slots=True, eq=False)
class _Request:
    """Its images are items of one row each, or they are rows of one item.

    Attributes:
        rows: of an item.
        unsent: items that have not been let in yet.
        pending: items that are in and not yet answered.
    """

    index: int
    arrived_s: float
    deadline_s: float
    rows: int
    unsent: int
    pending: int
    failed: bool = False


class Replica:
    """Takes arrivals and moves on in time.

    Args:
        service_s: the work of a batch, given its rows.
        latency_s: where the latency of each answered request goes, at its index.
        on_batch: told when each batch begins, and of the indices of the requests that its items are of.
    """

    def __init__(
        self,
        setup: Setup,
        service_s: Callable[[int], float],
        latency_s: list[float],
        on_batch: Callable[[float, list[int]], None] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.outstanding = 0
        self.rejected = 0
        self.expired = 0
        self.batches = 0
        self.rows = 0
        self.instances_busy_s = 0.0
        self.loop_busy_s = 0.0
        self.work_s = 0.0

        self._setup = setup
        self._service_s = service_s
        self._latency_s = latency_s
        self._on_batch = on_batch
        self._decode_on_loop_s = 0.0 if setup.decode_threads else setup.decode_s

        # What runs, by how much all must have worked until it is done: they all work at the same rate.
        self._running: list[tuple[float, int, int, Any]] = []
        self._started = 0
        self._worked_s = 0.0
        self._rate = 1.0

        self._loop_queue: deque[tuple[float, Callable[..., None], tuple[object, ...]]] = deque()
        self._loop_busy = False
        self._left_of_pass = 0
        self._loop_since_s = 0.0
        self._decode_queue: deque[_Request] = deque()
        self._decoding = 0

        self._queue: deque[tuple[_Request, float]] = deque()
        self._waiting_rows = 0
        self._idle = setup.instances
        self._forms_at_s: float | None = None

    def arrive(self, index: int, images: int = 1) -> None:
        """A request comes in now.

        Args:
            images: at most a batch's, where they are one tensor.
        """
        items, rows = (1, images) if self._setup.tensors else (images, 1)
        entering = min(items, self._setup.max_batch_size)
        deadline_s = self.now_s + self._setup.timeout_s
        request = _Request(index, self.now_s, deadline_s, rows, items - entering, entering)
        self.outstanding += 1
        work_s = self._setup.transport_s / 2 + entering * self._decode_on_loop_s
        self._to_loop(work_s, self._let_in, request, entering)

    def run_until(self, moment_s: float) -> None:
        """Let everything happen that happens by then; what arrives at one moment is seen together."""
        if moment_s > self.now_s:
            self._form()
        running = self._running
        while True:
            completion_s = timer_s = math.inf
            if running:
                completion_s = self.now_s + max(0.0, running[0][0] - self._worked_s) / self._rate
            if self._forms_at_s is not None and not self._loop_busy:
                timer_s = self._forms_at_s
            if min(completion_s, timer_s) > moment_s or not (running or timer_s < math.inf):
                break
            if timer_s <= completion_s:
                self._worked_s += (timer_s - self.now_s) * self._rate
                self.now_s = timer_s
                self._form()
                continue
            self.now_s = completion_s
            self._worked_s, _, what, job = heappop(running)
            self._share_cores()
            if what == LOOP:
                self._loop_done(*job)
                continue
            if what == INSTANCE:
                done = [self._batch_done(*job)]
                # Another instance that ends at this moment takes its next batch before the loop hands anything out.
                while running and running[0][2] == INSTANCE and running[0][0] <= self._worked_s:
                    done.append(self._batch_done(*heappop(running)[3]))
                    self._share_cores()
                for batch, idle in done:
                    self._to_loop(0.0, self._hand_out, batch, idle)
            else:
                self._to_loop(0.0, self._submit, job)
                self._decode_next()
            if not self._loop_busy:
                self._form()
        if moment_s < math.inf:
            self._worked_s += (moment_s - self.now_s) * self._rate
            self.now_s = moment_s

    def _batch_done(self, batch: list[_Request], since_s: float) -> tuple[list[_Request], int]:
        """The batch, and how many instances are idle for that it is done."""
        self.instances_busy_s += self.now_s - since_s
        more = [] if self._setup.max_queue_delay_s else self._take(self._setup.max_batch_size)
        if more:
            self._begin(more)
        return batch, 0 if more else 1

    def _run(self, work_s: float, what: int, job: object) -> None:
        self._started += 1
        self.work_s += work_s
        heappush(self._running, (self._worked_s + work_s, self._started, what, job))
        self._share_cores()

    def _share_cores(self) -> None:
        cores, threads = self._setup.cores, len(self._running)
        self._rate = cores / threads if cores and threads > cores else 1.0

    # The event loop: lets requests in, has batches formed, hands out what was inferred. What is there when it is done
    # with a pass is its next pass; batches are formed between two of them.

    def _to_loop(self, work_s: float, effect: Callable[..., None], *arguments: object) -> None:
        if self._loop_busy:
            self._loop_queue.append((work_s, effect, arguments))
        elif work_s:
            self._loop_busy, self._left_of_pass = True, 1
            self._start_loop(work_s, effect, arguments)
        else:
            effect(*arguments)

    def _start_loop(self, work_s: float, effect: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self._loop_since_s = self.now_s
        self._run(work_s, LOOP, (effect, arguments))

    def _loop_done(self, effect: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self.loop_busy_s += self.now_s - self._loop_since_s
        while True:
            effect(*arguments)
            self._left_of_pass -= 1
            if not self._left_of_pass:
                self._form()
                self._left_of_pass = len(self._loop_queue)
                if not self._left_of_pass:
                    self._loop_busy = False
                    return
            work_s, effect, arguments = self._loop_queue.popleft()
            if work_s:
                self._start_loop(work_s, effect, arguments)
                return

    def _let_in(self, request: _Request, items: int) -> None:
        for _ in range(0 if request.failed else items):
            if self._setup.decode_threads:
                self._decode_queue.append(request)
            else:
                self._submit(request)
        while self._decode_queue and self._decoding < self._setup.decode_threads:
            self._decoding += 1
            self._run(self._setup.decode_s, DECODER, self._decode_queue.popleft())

    def _decode_next(self) -> None:
        self._decoding -= 1
        while self._decode_queue:
            request = self._decode_queue.popleft()
            if not request.failed:
                self._decoding += 1
                self._run(self._setup.decode_s, DECODER, request)
                return

    def _hand_out(self, batch: Sequence[_Request], idle: int) -> None:
        self._idle += idle
        setup = self._setup
        items: dict[_Request, int] = {}
        for request in batch:
            items[request] = items.get(request, 0) + 1
        for request, done in items.items():
            if request.failed:
                continue
            if request.deadline_s < self.now_s:
                self.expired += 1
                self._fail(request)
                continue
            entering = min(done, request.unsent)
            request.unsent -= entering
            request.pending += entering - done
            work_s = done * setup.postprocessing_s + entering * self._decode_on_loop_s
            if request.pending:
                self._to_loop(work_s, self._let_in, request, entering)
            else:
                self._to_loop(work_s + setup.transport_s / 2, self._answer, request)

    def _answer(self, request: _Request) -> None:
        self._latency_s[request.index] = self.now_s - request.arrived_s
        self.outstanding -= 1

    def _refuse(self, request: _Request) -> None:
        """It has failed, and is told so."""

    def _fail(self, request: _Request) -> None:
        request.failed = True
        request.unsent = 0
        self.outstanding -= 1
        self._to_loop(self._setup.transport_s / 2, self._refuse, request)

    # The batcher.

    def _submit(self, request: _Request) -> None:
        if request.failed:
            return
        rows, most = request.rows, self._setup.max_queue_size
        if self._waiting_rows and self._waiting_rows + rows > most:
            self._drop_abandoned()
            if self._waiting_rows and self._waiting_rows + rows > most:
                self.rejected += 1
                self._fail(request)
                return
        self._queue.append((request, self.now_s))
        self._waiting_rows += rows

    def _abandoned(self, request: _Request) -> bool:
        if not request.failed and request.deadline_s <= self.now_s:
            self.expired += 1
            self._fail(request)
        return request.failed

    def _drop_abandoned(self) -> None:
        self._queue = deque(entry for entry in self._queue if not self._abandoned(entry[0]))
        self._waiting_rows = sum(request.rows for request, _ in self._queue)

    def _form(self) -> None:
        """Have idle instances take what they may take now."""
        while self._idle:
            if self._forms_at_s is None:
                if not self._waiting_rows:
                    return
                self._forms_at_s = self._queue[0][1] + self._setup.max_queue_delay_s
            if self._waiting_rows < self._setup.max_batch_size and self.now_s < self._forms_at_s:
                return
            self._forms_at_s = None
            if batch := self._take(self._share_of_idle()):
                self._idle -= 1
                self._begin(batch)

    def _share_of_idle(self) -> int:
        if self._setup.max_queue_delay_s:
            return self._setup.max_batch_size
        return min(self._setup.max_batch_size, -(-self._waiting_rows // self._idle))

    def _begin(self, batch: list[_Request]) -> None:
        rows = sum(request.rows for request in batch)
        self.batches += 1
        self.rows += rows
        if self._on_batch:
            self._on_batch(self.now_s, [request.index for request in batch])
        self._run(self._service_s(rows), INSTANCE, (batch, self.now_s))

    def _take(self, max_rows: int) -> list[_Request]:
        batch: list[_Request] = []
        rows = 0
        while self._queue:
            request, _ = self._queue[0]
            abandoned = self._abandoned(request)
            if not abandoned and batch and rows + request.rows > max_rows:
                break
            self._queue.popleft()
            self._waiting_rows -= request.rows
            if not abandoned:
                batch.append(request)
                rows += request.rows
        return batch
