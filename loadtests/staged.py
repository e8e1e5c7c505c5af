"""Locust's side of a shape."""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent  # type: ignore[import-untyped]
from locust import LoadTestShape

from loadtests.shapes import Stage


class Staged(LoadTestShape):
    """Goes through stages, and says when each begins.

    Args:
        spawn_rate: users that are started, or stopped, in a second.
    """

    use_common_options = True

    def __init__(self, stages: Sequence[Stage], spawn_rate: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stages = stages
        self._spawn_rate = spawn_rate
        self._current: Stage | None = None

    def tick(self) -> tuple[int, float] | None:
        """What there is to be now; None after the end."""
        end_s = 0.0
        for stage in self._stages:
            end_s += stage.duration_s
            left_s = end_s - (time.perf_counter() - self.start_time)
            if stage is self._current and left_s < 1:
                # Locust asks once a second, and would be late for the next stage.
                gevent.sleep(max(0.0, left_s))
            elif left_s > 0:
                if stage is not self._current:
                    print(f"  {stage.label}", flush=True)
                    self._current = stage
                return stage.users, self._spawn_rate
        return None
