"""What is common to all hardware that is watched."""

from __future__ import annotations

from typing import Protocol


class Hardware(Protocol):
    """Something that gives figures, again and again.

    A figure's name ends in its unit. Two are counters, of which only the growth says something: `energy_j` and
    `service_cpu_s`. `power_w` is what energy is computed from where there is no counter.

    Attributes:
        name: what it is called in the result.
        interval_s: how often it is asked.
        facts: what does not change during a run: model, versions, modes.
        notes: sentences on what cannot be known and why, and on what a figure covers.
    """

    name: str
    interval_s: float
    facts: dict[str, str]
    notes: list[str]

    def start(self) -> None:
        """Open what the figures are read from.

        Raises:
            SystemExit: it is not there.
        """

    def sample(self) -> dict[str, float]:
        """The figures of this moment; those that are not known now are left out.

        Raises:
            SamplingError: there will be no more.
        """

    def stop(self) -> None:
        """Close what `start` opened."""


class SamplingError(Exception):
    """Why there are no more figures, before the run was over."""
