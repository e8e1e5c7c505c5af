"""`python -m loadtests.compare A B`: what got better or worse from one result to another, beyond the noise of both."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Literal

from loadtests.command import run
from loadtests.report.levels import Level, Spread, levels_of
from loadtests.report.numbers import number
from loadtests.report.result import STAGES, Load, Result, Run, Search, read_result
from loadtests.report.tables import joules_per_image, spread_range, target

LEAST_CHANGE = 0.03
LEAST_ROUNDS = 3

Change = Literal["improvement", "regression", "within noise", "not judged"]


@dataclass(frozen=True)
class Figure:
    """What is compared of every load.

    Attributes:
        more_is_better: None: neither, it is only shown.
    """

    name: str
    of: Callable[[Run], float | None]
    more_is_better: bool | None


@dataclass(frozen=True)
class Comparison:
    """One figure in both results.

    Attributes:
        subject: protocol, load and figure.
    """

    subject: tuple[str, str, str]
    before: Spread
    after: Spread
    change: Change

    @property
    def ratio(self) -> float | None:
        """After to before; None: before is 0."""
        return self.after.median / self.before.median if self.before.median else None


def _percentile(percentile: float) -> Callable[[Run], float | None]:
    return lambda run: run.latency_ms.get(percentile)


def _stage(stage: str) -> Callable[[Run], float | None]:
    return lambda run: run.stage_ms.get(stage)


FIGURES = (
    Figure("images/s", lambda run: run.images_per_s, more_is_better=True),
    Figure("p50 ms", _percentile(50.0), more_is_better=False),
    Figure("p95 ms", _percentile(95.0), more_is_better=False),
    Figure("p99 ms", _percentile(99.0), more_is_better=False),
    Figure("J for an image", joules_per_image, more_is_better=False),
    *(Figure(f"{stage.replace('_', ' ')}, mean ms", _stage(stage), more_is_better=None) for stage in STAGES),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when something regressed."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.compare",
        description="Compare two results of `python -m loadtests.report`, or two of `python -m loadtests.search`.",
    )
    parser.add_argument("before", metavar="A", type=Path, help="result.json, or the folder that has it")
    parser.add_argument("after", metavar="B", type=Path)
    options = parser.parse_args(arguments)
    try:
        before, after = read_result(options.before), read_result(options.after)
        comparisons = compare(before, after)
    except ValueError as error:
        parser.error(str(error))
    print(to_markdown(before, after, comparisons))
    return 1 if any(each.change == "regression" for each in comparisons) else 0


def compare(before: Result, after: Result) -> list[Comparison]:
    """Each figure that both have of the same protocol and load; of two searches, the rate that is held.

    Raises:
        ValueError: they have none in common.
    """
    if before.search and after.search:
        return [_searches(before.search, after.search, min(before.rounds, after.rounds))]
    others = {(level.protocol, level.load): level for level in levels_of(after.runs)}
    pairs = [(level, others.get((level.protocol, level.load))) for level in levels_of(before.runs)]
    found = [comparison for level, other in pairs if other for comparison in _levels(level, other)]
    if not found:
        raise ValueError("the two results have no protocol and load in common")
    return found


def judge(before: Spread, after: Spread, *, more_is_better: bool | None) -> Change:
    """By the rule that `to_markdown` states."""
    if more_is_better is None or min(before.rounds, after.rounds) < LEAST_ROUNDS:
        return "not judged"
    apart = before.most < after.least or after.most < before.least
    if not apart or abs(after.median - before.median) < LEAST_CHANGE * before.median:
        return "within noise"
    return "improvement" if (after.median > before.median) == more_is_better else "regression"


def to_markdown(before: Result, after: Result, comparisons: list[Comparison]) -> str:
    lines = ["# Comparison", "", f"- A: {_what(before)}", f"- B: {_what(after)}", *_differences(before, after), ""]
    lines += [
        "| protocol | load | figure | A, median | range | B, median | range | B / A | |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in comparisons:
        ratio = "–" if each.ratio is None else f"{each.ratio:.3f}"
        spreads = [f"{number(spread.median)} | {spread_range(spread)}" for spread in (each.before, each.after)]
        lines.append(f"| {' | '.join([*each.subject, *spreads, ratio, each.change])} |")
    lines += ["", *_only_in_one(before, after), _rule(before, after, comparisons)]
    return "\n".join(lines)


def _levels(before: Level, after: Level) -> list[Comparison]:
    subject = before.protocol, str(before.load)
    found = []
    for figure in FIGURES:
        spreads = before.spread(figure.of), after.spread(figure.of)
        if spreads[0] and spreads[1]:
            change = judge(spreads[0], spreads[1], more_is_better=figure.more_is_better)
            found.append(Comparison((*subject, figure.name), spreads[0], spreads[1], change))
    failed = [Spread.of(run.failures / max(run.requests, 1) for run in level.runs) for level in (before, after)]
    assert failed[0]
    assert failed[1]
    found.append(Comparison((*subject, "failed, share"), failed[0], failed[1], _failures(failed[0], failed[1])))
    return found


def _failures(before: Spread, after: Spread) -> Change:
    """A first failure is a regression, however few there are."""
    if not before.most and not after.most:
        return "within noise"
    if not before.most:
        return "regression"
    if not after.most:
        return "improvement"
    return judge(before, after, more_is_better=False)


def _searches(before: Search, after: Search, rounds: int) -> Comparison:
    if (before.protocol, before.p99_ms) != (after.protocol, after.p99_ms):
        bounds = [f"{search.protocol} within {search.p99_ms:g} ms" for search in (before, after)]
        raise ValueError(f"the searches are not of the same: {bounds[0]}, {bounds[1]}")
    spreads = [_held(search, rounds, name) for search, name in ((before, "A"), (after, "B"))]
    subject = before.protocol, f"p99 within {before.p99_ms:g} ms", "rate held, requests/s"
    return Comparison(subject, spreads[0], spreads[1], judge(spreads[0], spreads[1], more_is_better=True))


def _held(search: Search, rounds: int, name: str) -> Spread:
    if search.rate_per_s is None:
        raise ValueError(f"{name} found no rate: {search.reason}")
    low, high = search.low_per_s or 0.0, search.high_per_s or float("inf")
    return Spread(search.rate_per_s, low, high, rounds)


def _what(result: Result) -> str:
    environment = result.environment
    model = f"{environment.model} version {environment.model_version}"
    return f"{result.time}, Fovea {environment.fovea}, {model}, {environment.hardware}, {result.rounds} rounds"


def _differences(before: Result, after: Result) -> list[str]:
    """What else than Fovea may make the difference."""
    names = {
        "hardware": "hardware", "memory_bytes": "memory", "gpu": "GPU", "operating_system": "operating system",
        "python": "Python", "onnxruntime": "ONNX Runtime", "service": "service", "settings": "settings",
        "model_sha256": "model (SHA-256 of model.onnx)", "execution_provider": "execution provider",
        "instances": "instances", "max_batch_size": "max batch size", "images": "images", "generator": "load generator",
    }  # fmt: skip
    different = {
        name: (getattr(before.environment, field), getattr(after.environment, field)) for field, name in names.items()
    }
    targets = target(before), target(after)
    for name in targets[0] | targets[1]:
        different[f"target's {name}"] = (targets[0].get(name, "not known"), targets[1].get(name, "not known"))
    lines = [f"- DIFFERENT {name}: {a} → {b}" for name, (a, b) in different.items() if a != b]
    if before.duration_s != after.duration_s:
        lines.append(f"- DIFFERENT duration of a run: {before.duration_s:g} s → {after.duration_s:g} s")
    return lines


def _only_in_one(before: Result, after: Result) -> list[str]:
    if before.search and after.search:
        return []
    loads: list[set[tuple[str, Load]]] = [{(run.protocol, run.load) for run in each.runs} for each in (before, after)]
    only = [("A", loads[0] - loads[1]), ("B", loads[1] - loads[0])]
    lines = [f"Only in {name}: {', '.join(f'{p} {load}' for p, load in sorted(some))}." for name, some in only if some]
    return [*lines, ""] if lines else []


def _rule(before: Result, after: Result, comparisons: list[Comparison]) -> str:
    judged = sum(each.change != "not judged" for each in comparisons)
    rule = (
        f"Rule: a change counts when the ranges over the rounds do not overlap and the medians differ by at least "
        f"{LEAST_CHANGE:.0%}; with fewer than {LEAST_ROUNDS} rounds nothing is judged but first failures. "
    )
    if min(before.rounds, after.rounds) >= LEAST_ROUNDS and not before.search:
        ways = comb(before.rounds + after.rounds, before.rounds)
        rule += (
            f"Of a figure that did not change, chance alone separates the ranges once in {ways / 2:,.0f} times with "
            f"{before.rounds} and {after.rounds} rounds; {judged} figures were judged. "
        )
    return rule + (
        "The rounds of one result do not show how a machine differs from one hour to another: compare two results of "
        "the same build to see that."
    )


if __name__ == "__main__":
    run(main)
