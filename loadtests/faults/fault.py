"""A fault, and what was found when it was provoked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtests.faults.callers import Tally


@dataclass(frozen=True)
class Finding:
    """Attributes:
    done: what was done to the service.
    seen: what it did then.
    tallies: how the requests ended, by the way that they went.
    """

    done: str
    seen: str
    tallies: dict[str, Tally]

    @property
    def lost(self) -> int:
        return sum(tally.lost.total() for tally in self.tallies.values())

    @property
    def unanswered(self) -> int:
        """Callers that got no answer however often they asked."""
        return sum(tally.unanswered for tally in self.tallies.values())


@dataclass(frozen=True)
class Fault:
    """Attributes:
    name: on the command line.
    title: in the table.
    provoke: takes the seconds of steady load before and after.
    missing: why it cannot be provoked here; empty if it can.
    loses: whether requests that were accepted may be lost.
    """

    name: str
    title: str
    provoke: Callable[[float], Awaitable[Finding]]
    missing: Callable[[], str] = lambda: ""
    loses: bool = False


def row(fault: Fault, finding: Finding) -> str:
    """A row of the table."""
    accepted = ", ".join(f"{way} {tally.accepted:,}" for way, tally in finding.tallies.items())
    return f"| {fault.title} | {finding.done} | {finding.seen} | {accepted} | {_lost(finding.tallies)} |"


HEAD = ("| fault | what was done | what was seen | accepted | lost |", "|---|---|---|---|---|")


def _lost(tallies: dict[str, Tally]) -> str:
    cells = []
    for way, tally in tallies.items():
        if tally.lost:
            how = ", ".join(f"{what}: {count}" for what, count in tally.lost.items())
            cells.append(f"{way} {tally.lost.total()} ({how})")
    if not cells:
        return "**0**"
    left = sum(tally.unanswered for tally in tallies.values())
    return "; ".join(cells) + ("; all answered when asked again" if not left else f"; {left} never answered")
