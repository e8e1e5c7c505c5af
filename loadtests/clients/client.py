"""What every client of the load tests can do."""

from __future__ import annotations

from typing import Protocol

TIMEOUT_S = 60.0
"""Longer than the service takes to give a request up."""


class RequestError(Exception):
    """The answer is not what was asked for; the text says why."""


class Client(Protocol):
    """Connects when it first sends. Several greenlets may send at once."""

    def send(self) -> int:
        """One request.

        Returns:
            The answer's length in bytes.

        Raises:
            RequestError: the service says no.
            Exception: there is no answer.
        """
        ...

    def close(self) -> None: ...
