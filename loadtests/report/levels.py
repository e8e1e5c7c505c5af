"""The runs of one protocol under one load, over the rounds: medians and ranges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from loadtests.report.result import Load, Run


@dataclass(frozen=True)
class Spread:
    """One figure over the rounds: its median and its range."""

    median: float
    least: float
    most: float
    rounds: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Spread | None:
        """None where no round has the figure."""
        known = [value for value in values if value is not None]
        return Spread(median(known), min(known), max(known), len(known)) if known else None


@dataclass(frozen=True)
class Level:
    """Every run of one protocol under one load."""

    protocol: str
    load: Load
    runs: tuple[Run, ...]

    def spread(self, figure: Callable[[Run], float | None]) -> Spread | None:
        return Spread.of(figure(run) for run in self.runs)

    def latency_ms(self, percentile: float) -> Spread | None:
        return self.spread(lambda run: run.latency_ms.get(percentile))

    def refused_ms(self, percentile: float) -> Spread | None:
        return self.spread(lambda run: run.refused_ms.get(percentile))

    @property
    def images_per_s(self) -> Spread:
        spread = self.spread(lambda run: run.images_per_s)
        assert spread is not None
        return spread

    @property
    def requests(self) -> int:
        return sum(run.requests for run in self.runs)

    @property
    def failures(self) -> int:
        return sum(run.failures for run in self.runs)

    @property
    def batch_shares(self) -> dict[str, float]:
        """The share of the batches that had each size, over all rounds; the smallest sizes first."""
        counts: defaultdict[str, int] = defaultdict(int)
        for run in self.runs:
            for sizes, batches in run.batch_sizes.items():
                counts[sizes] += batches
        return {sizes: counts[sizes] / sum(counts.values()) for sizes in sorted(counts, key=smallest)}

    @property
    def where_the_time_went_ms(self) -> dict[str, float]:
        """Mean milliseconds of a request: each stage, the rest of the service's own time, and what is outside of that.

        Means over the rounds; parts of a mean add up, as parts of a percentile do not.
        """
        means = [_parts(run) for run in self.runs if run.mean_ms is not None and "total" in run.stage_ms]
        return {part: fmean(each[part] for each in means) for part in means[0]} if means else {}


def levels_of(runs: Sequence[Run]) -> list[Level]:
    """By protocol in the order of the runs, then by load."""
    protocols = list(dict.fromkeys(run.protocol for run in runs))
    return [
        Level(protocol, load, tuple(run for run in runs if (run.protocol, run.load) == (protocol, load)))
        for protocol in protocols
        for load in sorted({run.load for run in runs if run.protocol == protocol})
    ]


def smallest(sizes: str) -> float:
    """To sort ranges of batch sizes by: `3–4` is 3."""
    return float(sizes.removeprefix("over ").partition("–")[0]) + (0.5 if sizes.startswith("over") else 0)


def _parts(run: Run) -> dict[str, float]:
    assert run.mean_ms is not None
    stages = {stage.replace("_", " "): mean_ms for stage, mean_ms in run.stage_ms.items() if stage != "total"}
    total_ms = run.stage_ms["total"]
    return {
        **stages,
        "rest of the service": max(0.0, total_ms - sum(stages.values())),
        "network and clients": max(0.0, run.mean_ms - total_ms),
    }
