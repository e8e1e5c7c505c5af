"""Whether the service is ready, and whether it is stopping: what every adapter asks before it starts work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STOPPING = "the service is stopping"


class Lifecycle:
    """Starting, ready, stopping. Live throughout.

    Attributes:
        stopping: set once, at the first signal.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._problems: Callable[[], list[str]] | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def not_ready(self) -> str | None:
        """Why the service is not ready; None when it is."""
        if self.stopping.is_set():
            return STOPPING
        return "; ".join(self._problems()) or None if self._problems else "the service is starting"

    @property
    def has_started(self) -> bool:
        """Whether every model was tried."""
        return self._problems is not None

    def started(self, problems: Callable[[], list[str]]) -> None:
        """Every model was tried; ready, for as long as there are no problems."""
        self._problems = problems

    def enter(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()
