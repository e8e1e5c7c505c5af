"""A load test as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.run import Run

HEADINGS = (
    "protocol", "requests", "requests/s", "p50 ms", "p95 ms", "p99 ms", "failures",
    "mean batch size", "mean queue time ms",
)  # fmt: skip


def summarize(runs: Sequence[Run], facts: dict[str, str]) -> str:
    """The runs as a table, under what one needs to know to read it."""
    lines = ["# Load test", "", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    lines += [_row(HEADINGS), _row(["---", *["---:"] * (len(HEADINGS) - 1)])]
    lines += [
        _row(
            [
                run.protocol,
                f"{run.requests:,}",
                f"{run.requests_per_s:,.0f}",
                _number(run.p50_ms, 1),
                _number(run.p95_ms, 1),
                _number(run.p99_ms, 1),
                f"{run.failures:,}",
                _number(run.mean_batch_size, 2),
                _number(run.mean_queue_ms, 2),
            ]
        )
        for run in runs
    ]
    errors = [f"- {run.protocol}: {error}" for run in runs for error in run.errors]
    if errors:
        lines += ["", "Failures:", "", *errors]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
