"""A locust user: one request after another, or requests at random moments whether earlier ones were answered or not."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from itertools import dropwhile
from typing import Any, ClassVar

from gevent import GreenletExit  # type: ignore[import-untyped]
from gevent.pool import Group  # type: ignore[import-untyped]
from locust import User, events, task
from locust.env import Environment

from loadtests.clients.client import Client, RequestError
from loadtests.refusals import REFUSED, refused
from loadtests.shapes import Stage, due, stage_at

MOST_IN_FLIGHT = 256
"""Of one user with an open load; what is due beyond it fails unsent."""

LONGEST_WAIT_S = 60.0

LATE = "generator", "sent late"
"""What the milliseconds are filed under by which an open load was sent late: locust's type and name."""


class LoadUser(User):
    """What the users of each protocol have in common.

    The latency of an open load counts from the moment that a request was due. A user that is late sends all the same:
    no request is left out because others took long (coordinated omission).

    Latency is kept of answered requests alone; the others are counted, with what kept them from being answered. What it
    took to refuse a request is kept beside it.
    """

    abstract = True
    protocol: ClassVar[str]
    started_s: ClassVar[float]

    def connect(self) -> Client:
        raise NotImplementedError

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assert environment.parsed_options
        self._stages = [Stage(*stage) for stage in environment.parsed_options.stages]
        self._open = self._stages[0].rate_per_user is not None
        self._schedule: Iterator[float] = iter(())
        self._due_s = math.inf
        self._in_flight = Group()
        self._client = self.connect()

    def on_start(self) -> None:
        if self._open:
            now_s = self._now_s()
            self._schedule = dropwhile(lambda due_s: due_s < now_s, due(self._stages, secrets.randbits(64)))
            self._due_s = next(self._schedule, math.inf)
            self.wait()  # type: ignore[no-untyped-call]
        else:
            # It opens the connection, and is not counted.
            try:
                self._client.send()
            except Exception as error:
                self._count(self._now_s(), error=_text(error))

    def wait_time(self) -> float:
        return min(max(0.0, self._due_s - self._now_s()), LONGEST_WAIT_S) if self._open else 0.0

    @task
    def load(self) -> None:
        if self._open:
            self._send_due()
        else:
            self._send(self._now_s())

    def on_stop(self) -> None:
        self._send_due()
        try:
            self._in_flight.join(self.environment.stop_timeout)
        finally:
            self._in_flight.kill()
            self._client.close()

    def _send_due(self) -> None:
        now_s = self._now_s()
        while self._due_s <= now_s:
            if len(self._in_flight) < MOST_IN_FLIGHT:
                self._in_flight.spawn(self._send, self._due_s)
            else:
                self._count(self._due_s, error=f"not sent: {MOST_IN_FLIGHT} requests of this user are unanswered")
            self._due_s = next(self._schedule, math.inf)

    def _send(self, due_s: float) -> None:
        if self._open:
            late_ms: Any = 1e3 * (self._now_s() - due_s)
            method, name = LATE
            self.environment.stats.get(name, method).log(late_ms, 0)  # Not part of the sum.
        try:
            self._count(due_s, length=self._client.send())
        except GreenletExit:
            self._count(due_s, error="not answered before the end")
            raise
        except Exception as error:
            self._count(due_s, error=_text(error))

    def _count(self, due_s: float, *, length: int = 0, error: str | None = None) -> None:
        stage = stage_at(self._stages, due_s).label
        if refused(error):
            refused_ms: Any = 1e3 * (self._now_s() - due_s)
            self.environment.stats.get(stage, REFUSED).log(refused_ms, 0)  # Not part of the sum.
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=stage,
            response_time=None if error else 1e3 * (self._now_s() - due_s),
            response_length=length,
            exception=error,
            context={},
        )

    def _now_s(self) -> float:
        """Seconds from the start of the first stage."""
        return time.perf_counter() - self.started_s


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _note_the_start(**_: Any) -> None:
    LoadUser.started_s = time.perf_counter()
