"""The scenarios as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.scenarios.logs import Verdict
from loadtests.scenarios.settings import Protocol, Scenario
from loadtests.scenarios.system import Outcome

HEADINGS = (
    "scenario", "protocol", "LoadGen says", "result", "accuracy", "queries", "images a query", "failed requests",
    "most in flight", "mean batch size",
)  # fmt: skip
TITLES: dict[Protocol, str] = {"http": "HTTP", "grpc": "gRPC"}


@dataclass(frozen=True)
class Performance:
    """A run in performance mode.

    Attributes:
        queries: that LoadGen issued.
        images_per_query: in each of them.
        mean_batch_size: as the service counted; None: no batch was run.
    """

    outcome: Outcome
    verdict: Verdict
    queries: int
    images_per_query: int
    mean_batch_size: float | None


@dataclass(frozen=True)
class Accuracy:
    """A run in accuracy mode: how many of the images were answered with their own label."""

    outcome: Outcome
    correct: int
    images: int


@dataclass(frozen=True)
class Result:
    """One scenario over one protocol; None: not run in that mode."""

    scenario: Scenario
    protocol: Protocol
    performance: Performance | None
    accuracy: Accuracy | None

    def outcomes(self) -> list[tuple[str, Outcome]]:
        runs = (("performance", self.performance), ("accuracy", self.accuracy))
        return [(f"{self.scenario} over {TITLES[self.protocol]}, {mode}", run.outcome) for mode, run in runs if run]


def report(results: Sequence[Result], facts: dict[str, str]) -> str:
    """The results as a table. Figures of a run with failed requests are left out: LoadGen takes those for answers."""
    lines = ["# MLPerf LoadGen", "", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    lines += [_row(HEADINGS), _row(["---", "---", "---", "---", *["---:"] * (len(HEADINGS) - 4)])]
    lines += [_row(_cells(result)) for result in results]
    reasons = [
        f"- {result.scenario} over {TITLES[result.protocol]}: {reason}"
        for result in results
        if result.performance
        for reason in result.performance.verdict.reasons
    ]
    if reasons:
        lines += ["", "Why INVALID, in LoadGen's words:", "", *reasons]
    failures = [
        f"- {run}: {outcome.failed:,} of {outcome.requests:,} requests; the first: {outcome.first_error}"
        for result in results
        for run, outcome in result.outcomes()
        if outcome.failed
    ]
    if failures:
        lines += ["", "Failures:", "", *failures]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: Result) -> list[str]:
    failed = sum(outcome.failed for _, outcome in result.outcomes())
    return [
        result.scenario,
        TITLES[result.protocol],
        *(_verdict(result.scenario, result.performance) if result.performance else ("–", "–")),
        _accuracy(result.accuracy) if result.accuracy else "–",
        f"{result.performance.queries:,}" if result.performance else "–",
        f"{result.performance.images_per_query:,}" if result.performance else "–",
        f"{failed:,}",
        f"{max(outcome.most_in_flight for _, outcome in result.outcomes()):,}",
        f"{result.performance.mean_batch_size:.2f}"
        if result.performance and result.performance.mean_batch_size
        else "–",
    ]


def _verdict(scenario: Scenario, performance: Performance) -> tuple[str, str]:
    """The verdict, and MLPerf's metric of the scenario."""
    if performance.outcome.failed:
        return "does not count", "–"
    values = performance.verdict.values
    p90_ms, p99_ms = (float(values[f"{percentile}.00 percentile latency (ns)"]) / 1e6 for percentile in (90, 99))
    match scenario:
        case "SingleStream":
            metric = f"p90 {p90_ms:.2f} ms"
        case "MultiStream":
            metric = f"p99 {p99_ms:.2f} ms"
        case "Server":
            metric = f"{float(values['Scheduled samples per second']):,.1f} scheduled qps, p99 {p99_ms:.2f} ms"
        case "Offline":
            metric = f"{float(values['Samples per second']):,.1f} images/s"
    return "VALID" if performance.verdict.valid else "INVALID", metric


def _accuracy(accuracy: Accuracy) -> str:
    return "–" if accuracy.outcome.failed else f"{accuracy.correct / accuracy.images:.4f} of {accuracy.images:,}"
