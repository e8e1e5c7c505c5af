"""Inference requests whose words are known: clients send the same ones again and again, with other tensors.

Such a request was read, checked and answered once by the adapter of its protocol, which then leaves a `Form` here: what
its words mean, and which words an answer to them has. From then on only the tensors differ, and a request takes the way
here: to the queue and back without a task, a parser or a check that the first one has passed. Whatever is out of the
ordinary (a service that stops, requests that are traced, a version that is not ready) is left to the adapter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.batching import Completed, Timed
from service.errors import FoveaError
from service.inference import Inference, Tensor, Timeline
from service.lifecycle import Lifecycle
from service.loading import ServedVersion
from service.telemetry import RequestRecord, Telemetry, request_id
from service.tensors import Array, Tensors
from service.trace_context import TraceContext, trace_context
from service.trial import Part

log = logging.getLogger("fovea")

MAX_FORMS = 1024
MAX_WORDS_BYTES = 4096
"""Of the words of one form."""
MAX_SHAPES = 16
"""Of a form's answers, whose words are kept."""

Words = tuple[bytes, ...]
"""What an answer has around its tensors, as its adapter wants it."""


@dataclass(frozen=True, slots=True)
class _Input:
    """Where one input's elements are in a request's tensors."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    begin: int


@dataclass(eq=False, slots=True)
class Form:
    """An inference request without its tensors, which are in raw bytes, and so are those of its answer.

    Attributes:
        model, version: as the client names them.
        served: what that was; another version by now makes the form void.
        size_bytes: of all tensors.
        wanted: indices of the model's outputs.
        word: an answer's words, for the outputs' shapes.
    """

    model: str
    version: str
    served: ServedVersion
    inputs: tuple[_Input, ...]
    size_bytes: int
    rows: int
    kind: Hashable
    wanted: tuple[int, ...]
    priority: int
    queue_timeout_s: float | None
    word: Callable[[Sequence[Array]], Words]
    words: dict[tuple[tuple[int, ...], ...], Words] = field(default_factory=dict)

    def words_for(self, outputs: Sequence[Array]) -> Words:
        shapes = tuple([output.shape for output in outputs])
        found = self.words.get(shapes)
        if found is None:
            if len(self.words) == MAX_SHAPES:
                self.words.clear()
            found = self.words[shapes] = self.word(outputs)
        return found


def form_of(
    model: str,
    version: str,
    served: ServedVersion,
    inputs: Mapping[str, Tensor],
    size_bytes: int,
    outputs: Sequence[str],
    *,
    priority: int,
    timeout_us: int,
    word: Callable[[Sequence[Array]], Words],
) -> Form | None:
    """The form of a request that was answered; None where it has none.

    Args:
        inputs: in the order in which their bytes were sent, one after another.
        size_bytes: how many these bytes were.
        outputs: those that were asked for, none: all.
    """
    config = served.config
    datatypes = {tensor.datatype for tensor in inputs.values()} | {spec.datatype for spec in config.outputs}
    if "BYTES" in datatypes or sum(tensor.array.nbytes for tensor in inputs.values()) != size_bytes:
        return None
    at, places = 0, {}
    for name, tensor in inputs.items():
        places[name] = _Input(tensor.array.shape, tensor.array.dtype, at)
        at += tensor.array.nbytes
    item = tuple(inputs[spec.name].array for spec in config.inputs)
    names = [spec.name for spec in config.outputs]
    level = priority if 1 <= priority <= config.priority_levels else config.default_priority
    return Form(
        model=model,
        version=version,
        served=served,
        inputs=tuple(places[spec.name] for spec in config.inputs),
        size_bytes=size_bytes,
        rows=len(item[0]) if config.max_batch_size else 1,
        kind=served.kind(item),
        wanted=tuple(names.index(name) for name in dict.fromkeys(outputs or names)),
        priority=level,
        queue_timeout_s=config.queue_timeout_s(level, timeout_us),
        word=word,
    )


class Flight:
    """A known request, begun or about to be; what becomes of it goes to the adapter.

    Args:
        identity: the request's, for the log.
        answer: takes the words of an answer and its tensors.
        fail: takes the error in its place. One of the two is called, once, unless the flight is cancelled.
        part: the request's in a trial.
        parent: its caller's trace context.
    """

    __slots__ = (
        *("_answer", "_context", "_entry", "_fail", "_form", "_identity", "_item", "_known", "_over", "_part"),
        "_record",
        "_start",
    )

    def __init__(
        self,
        known: KnownRequests,
        form: Form,
        item: Tensors,
        identity: str,
        answer: Callable[[Words, list[bytes]], object],
        fail: Callable[[FoveaError], object],
        part: Part | None,
        parent: TraceContext | None = None,
    ) -> None:
        self._known = known
        self._context = parent
        self._form = form
        self._identity = identity
        self._item = item
        self._part = part
        self._answer = answer
        self._fail = fail
        self._over = False
        self._entry: Timed | None = None

    def begin(self, timeout_s: float) -> None:
        """Enter the queue; where that refuses it, it has failed."""
        form, item = self._form, self._item
        if not self._part:
            self._item = ()
        self._start = time.monotonic()
        self._record = self._known.begun(form, self._identity, self._context)
        if self._record.span:
            self._context = self._record.span.context
        try:
            self._entry = form.served.batcher.enqueue(
                item,
                self,
                self._start + timeout_s,
                rows=form.rows,
                kind=form.kind,
                priority=form.priority,
                queue_timeout_s=form.queue_timeout_s,
                trace=self._context,
            )
        except FoveaError as error:
            self.set_exception(error)

    def done(self) -> bool:
        return self._over

    def set_result(self, completed: Completed[Tensors], /) -> None:
        form = self._form
        duration_s = time.monotonic() - self._start
        form.served.statistics.on_success(duration_s, completed.queue_s, completed.batch)
        if self._part:
            self._part.answered(self._item, form.rows, completed.result, duration_s)
        if self._record.span:
            timeline = Timeline(self._start, self._start, completed.queue_s, completed.batch, time.monotonic())
            self._record.span.add(form.served.name, form.served.version, timeline)
        try:
            outputs = [completed.result[index] for index in form.wanted]
            words, tensors = form.words_for(outputs), [output.tobytes() for output in outputs]
        except Exception as error:
            named, traced = request_id.set(self._identity), trace_context.set(self._context)
            log.exception("internal error", exc_info=error)
            request_id.reset(named)
            trace_context.reset(traced)
            self._end(FoveaError("internal error; the log has the details"))
        else:
            self._end(None)
            self._answer(words, tensors)

    def set_exception(self, error: FoveaError, /) -> None:
        self._form.served.statistics.on_failure(time.monotonic() - self._start, error)
        if self._part:
            self._part.failed()
        self._end(error)

    def cancel(self) -> None:
        """Its client has gone: it costs no inference any more."""
        if not self._over:
            gone = asyncio.CancelledError()
            self._form.served.statistics.on_failure(time.monotonic() - self._start, gone)
            self._leave(gone)

    def _end(self, error: FoveaError | None) -> None:
        self._leave(error)
        if error:
            self._fail(error)

    def _leave(self, error: BaseException | None) -> None:
        self._over = True
        self._item = ()
        if self._entry:
            self._entry.forget_time()
            self._entry = None
        named, traced = request_id.set(self._identity), trace_context.set(self._context)
        self._known.ended(self._form, self._record, error)
        request_id.reset(named)
        trace_context.reset(traced)


class KnownRequests:
    """The forms of one protocol's requests, and the way of those that have one.

    Args:
        protocol: as it is counted, "http" or "grpc".
        operation: their route or method.
    """

    def __init__(
        self, inference: Inference, lifecycle: Lifecycle, telemetry: Telemetry, *, protocol: str, operation: str
    ) -> None:
        self._inference = inference
        self._lifecycle = lifecycle
        self._telemetry = telemetry
        self._protocol = protocol
        self._operation = operation
        self._forms: dict[Hashable, list[Form]] = {}
        """Of each request: one for each version that answers it."""

    @property
    def stopping(self) -> bool:
        """Whether the service is."""
        return self._lifecycle.stopping.is_set()

    def knows(self, key: Hashable, served: ServedVersion) -> bool:
        """Whether it has a request's form, of this version."""
        return any(form.served is served for form in self._forms.get(key, ()))

    def remember(self, key: Hashable, form: Form) -> None:
        if len(self._forms) >= MAX_FORMS:
            self._forms.clear()
        others = [other for other in self._forms.get(key, ()) if other.served is not form.served]
        self._forms[key] = [form, *(other for other in others if not other.served.withdrawn)]

    def flight(
        self,
        key: Hashable,
        content: bytes,
        at: int,
        identity: str,
        answer: Callable[[Words, list[bytes]], object],
        fail: Callable[[FoveaError], object],
        parent: TraceContext | None = None,
    ) -> Flight | None:
        """A request that is known and can be begun; None: it is left to the adapter.

        Args:
            at: where the tensors begin in `content`, which ends with them.
            identity, answer, fail, parent: as for a `Flight`.
        """
        forms = self._forms.get(key)
        if forms is None or len(content) - at != forms[0].size_bytes or self.stopping or self._telemetry.tracing:
            return None
        form, part = self._next(key, forms)
        if form is None:
            return None
        if part:
            part.begin()
        item = tuple([np.ndarray(given.shape, given.dtype, content, at + given.begin) for given in form.inputs])
        return Flight(self, form, item, identity, answer, fail, part, parent)

    def begun(self, form: Form, identity: str, parent: TraceContext | None) -> RequestRecord:
        self._lifecycle.enter()
        form.served.acquire()
        record = self._telemetry.begin(self._protocol, self._operation, identity, parent)
        record.model = form.served.name
        return record

    def ended(self, form: Form, record: RequestRecord, error: BaseException | None) -> None:
        self._telemetry.end(record, error)
        form.served.release()
        self._lifecycle.leave()

    def _next(self, key: Hashable, forms: list[Form]) -> tuple[Form | None, Part | None]:
        """The form of the version that the request gets, and its part; None: the adapter is to choose."""
        try:
            served, part = self._inference.next(forms[0].model, forms[0].version)
        except FoveaError:
            del self._forms[key]
            return None, None
        for form in forms:
            if form.served is served:
                return form, part
        # The version's form is not there yet; those of versions that are gone go.
        forms[:] = [form for form in forms if not form.served.withdrawn]
        if not forms:
            del self._forms[key]
        return None, None
