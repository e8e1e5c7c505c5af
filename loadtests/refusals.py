"""Requests that the service is too busy for."""

from __future__ import annotations

REFUSALS = ("503: ", "UNAVAILABLE: ")
"""How their errors begin."""

REFUSED = "refused"
"""What locust files the milliseconds under that it took to refuse them: its type; its name is the stage."""


def refused(error: str | None) -> bool:
    """Whether it is what a request was refused with; None: it was answered."""
    return error is not None and error.startswith(REFUSALS)
