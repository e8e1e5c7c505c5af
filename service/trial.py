"""Versions on trial: what becomes of requests that a rollout sends to the canary, or copies to the shadow.

All of it happens after the answer was handed out: the outputs are looked at, and a copy goes into the shadow's queue
only while no request waits, there or for the current version, and few copies are on their way. A copy never fails what
it is a copy of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.batching import Completed, Timed
from service.errors import FoveaError
from service.image_contract import ImageContract
from service.loading import ServedVersion
from service.tensors import Tensors

MAX_COPIES = 8
"""Most copies on their way to one shadow."""
COPY_TIMEOUT_S = 30.0

Role = Literal["current", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class Side:
    """A version in its role."""

    model: str
    version: str
    role: Role


@dataclass(frozen=True, slots=True)
class Sent:
    """A request goes to the version."""

    side: Side


@dataclass(frozen=True, slots=True)
class Answered:
    """Inference has an answer, queue included after so many seconds. Confidences are each image's, the probability of
    what it was taken for; none of what is no classifier."""

    side: Side
    duration_s: float
    confidences: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """It has none, or one with NaN or infinite scores or features."""

    side: Side


@dataclass(frozen=True, slots=True)
class Compared:
    """A copy is answered: so many images, on so many of which both say the same class. Confidences are sums."""

    side: Side
    images: int
    agreed: int
    confidence: float
    current_confidence: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A copy was not made: something waits, or too many are on their way."""

    side: Side


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A rollout holds from now on: each side of its trial and its share, none where there is no trial."""

    model: str
    shares: tuple[tuple[Side, Fraction], ...]


Event = Sent | Answered | Failed | Compared | Dropped | TakenUp
Observe = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of each image (N,): the class that it is taken for, and that one's probability."""

    classes: npt.NDArray[np.intp]
    confidences: npt.NDArray[np.float64]


def verdict(served: ServedVersion, outputs: Tensors, rows: int) -> Verdict | None:
    """What a version says of so many images; None where it is no classifier.

    Raises:
        ValueError: a score or a feature is NaN or infinite.
    """
    if not isinstance(served.images, ImageContract):
        return None
    output = outputs[served.images.output]
    if not np.isfinite(output).all():
        raise ValueError("the output is not finite")
    if served.images.features:
        return None
    scores = output.reshape(rows, -1).astype(np.float64)
    classes, largest = scores.argmax(1), scores.max(1)
    if served.images.scores == "logits":
        largest = 1 / np.exp(scores - largest[:, None]).sum(1)
    return Verdict(classes, largest)


class Shadow:
    """The version that is asked the same as the current one.

    Args:
        current: whose requests are copied.
    """

    def __init__(self, side: Side, served: ServedVersion, current: ServedVersion, observe: Observe) -> None:
        self.served = served
        self._side = side
        self._current = current
        self._observe = observe
        self._copies = self._rows = 0

    def ask(self, item: Tensors, rows: int, found: Verdict | None) -> None:
        """Copy a request.

        Args:
            found: what the current version says of it.
        """
        others_wait = self._current.batcher.queue_depth or self.served.batcher.queue_depth > self._rows
        if others_wait or self._copies >= MAX_COPIES or self.served.withdrawn:
            self._observe(Dropped(self._side))
            return
        copy = _Copy(self, rows, found)
        try:
            copy.entry = self.served.batcher.enqueue(
                item,
                copy,
                copy.start + COPY_TIMEOUT_S,
                rows=rows,
                kind=self.served.kind(item),
                priority=self.served.config.priority_levels,
            )
        except FoveaError:
            self._observe(Dropped(self._side))
        else:
            self._observe(Sent(self._side))
            self._copies += 1
            self._rows += rows
            self.served.acquire()

    def over(
        self, rows: int, found: Verdict | None, duration_s: float, outcome: Completed[Tensors] | FoveaError
    ) -> None:
        """A copy has its answer, or none."""
        self._copies -= 1
        self._rows -= rows
        self.served.release()
        if isinstance(outcome, FoveaError):
            self.served.statistics.on_failure(duration_s, outcome)
            self._observe(Failed(self._side))
            return
        self.served.statistics.on_success(duration_s, outcome.queue_s, outcome.batch)
        try:
            own = verdict(self.served, outcome.result, rows)
        except ValueError:
            self._observe(Failed(self._side))
            return
        self._observe(Answered(self._side, duration_s, tuple(own.confidences.tolist()) if own else ()))
        if own and found:
            agreed = int((own.classes == found.classes).sum())
            confidence, of_current = float(own.confidences.sum()), float(found.confidences.sum())
            self._observe(Compared(self._side, rows, agreed, confidence, of_current))


class _Copy:
    """Waits for what becomes of a copy, as a `Waiter`."""

    __slots__ = ("_found", "_over", "_rows", "_shadow", "entry", "start")

    def __init__(self, shadow: Shadow, rows: int, found: Verdict | None) -> None:
        self.start = time.monotonic()
        self.entry: Timed | None = None
        self._shadow = shadow
        self._rows = rows
        self._found = found
        self._over = False

    def done(self) -> bool:
        return self._over

    def set_result(self, completed: Completed[Tensors], /) -> None:
        self._end(completed)

    def set_exception(self, error: FoveaError, /) -> None:
        self._end(error)

    def _end(self, outcome: Completed[Tensors] | FoveaError) -> None:
        self._over = True
        if self.entry:
            self.entry.forget_time()
            self.entry = None
        self._shadow.over(self._rows, self._found, time.monotonic() - self.start, outcome)


class Part:
    """A request's part in a trial.

    Args:
        served: what answers it.
        shadow: what is asked the same then.
        count: told that a request has this part.
    """

    __slots__ = ("_count", "_observe", "_shadow", "_side", "served")

    def __init__(
        self,
        side: Side,
        served: ServedVersion,
        shadow: Shadow | None,
        observe: Observe,
        count: Callable[[Role], None],
    ) -> None:
        self.served = served
        self._side = side
        self._shadow = shadow
        self._observe = observe
        self._count = count

    def begin(self) -> None:
        """A request has it."""
        self._count(self._side.role)
        self._observe(Sent(self._side))

    def answered(self, item: Tensors, rows: int, outputs: Tensors, duration_s: float) -> None:
        """Inference has answered an item of the request; what there is to do waits until that is handed out."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self._look, item if self._shadow else (), rows, outputs, duration_s)

    def failed(self) -> None:
        self._observe(Failed(self._side))

    def _look(self, item: Tensors, rows: int, outputs: Tensors, duration_s: float) -> None:
        try:
            found = verdict(self.served, outputs, rows)
        except ValueError:
            self._observe(Failed(self._side))
            return
        self._observe(Answered(self._side, duration_s, tuple(found.confidences.tolist()) if found else ()))
        if self._shadow:
            self._shadow.ask(item, rows, found)
