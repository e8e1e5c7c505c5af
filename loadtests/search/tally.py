"""What the probes so far say of the rates that were tried."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from loadtests.report.result import Run
from loadtests.search.verdict import Verdict, verdict


@dataclass
class Tally:
    """Every probe so far. A rate is decided once it has as many as there are rounds, by most of them.

    Attributes:
        p99_ms: the bound.
        rounds: probes that decide on a rate.
    """

    p99_ms: float
    rounds: int
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> Verdict:
        self.runs.append(run)
        return verdict(run, self.p99_ms)

    def verdicts(self, rate: float) -> list[Verdict]:
        return [verdict(run, self.p99_ms) for run in self.runs if run.load.value == rate]

    @property
    def highest_held(self) -> float | None:
        """The highest rate decided as held, as were all decided rates below."""
        below = self.lowest_missed or math.inf
        return max((rate for rate in self.decided if rate < below), default=None)

    @property
    def lowest_missed(self) -> float | None:
        """The lowest rate decided as not held."""
        return min((rate for rate, held in self.decided.items() if 2 * held <= self.rounds), default=None)

    @property
    def all_held_up_to(self) -> float | None:
        """The highest decided rate that every probe held, as every probe did at all decided rates below."""
        last = None
        for rate, held in self.decided.items():
            if held < self.rounds:
                break
            last = rate
        return last

    @property
    def all_missed_from(self) -> float | None:
        """The lowest decided rate that no probe held, as none did at any decided rate above."""
        last = None
        for rate, held in reversed(self.decided.items()):
            if held:
                break
            last = rate
        return last

    @property
    def decided(self) -> dict[float, int]:
        """How many probes held each decided rate, the lowest rate first."""
        tried = {rate: self.verdicts(rate) for rate in sorted({run.load.value for run in self.runs})}
        return {rate: each.count("held") for rate, each in tried.items() if len(each) >= self.rounds}
