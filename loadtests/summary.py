"""A load test as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.run import Figures, Run

HEADINGS = (
    "users", "requests", "answered/s", "p50 ms", "p95 ms", "p99 ms", "failures",
    "mean batch size", "mean queue time ms",
)  # fmt: skip


def summarize(runs: Sequence[Run], facts: dict[str, str]) -> str:
    """The runs as a table, with their stages, under what one needs to know to read it."""
    lines = ["# Load test", "", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    lines += [_row(HEADINGS), _row(["---", *["---:"] * (len(HEADINGS) - 1)])]
    for run in runs:
        lines.append(
            _row([*_cells(run.name, run.whole), _number(run.mean_batch_size, 2), _number(run.mean_queue_ms, 2)])
        )
        lines += [_row([*_cells(f"{run.name}, {label}", figures), "", ""]) for label, figures in run.stages.items()]
    notes = [f"- {run.name}: {note}" for run in runs for note in _notes(run)]
    if notes:
        lines += ["", *notes]
    errors = [f"- {run.name}: {error}" for run in runs for error in run.errors]
    if errors:
        lines += ["", "Failures:", "", *errors]
    return "\n".join(lines) + "\n"


def _cells(name: str, figures: Figures) -> list[str]:
    return [
        name,
        f"{figures.requests:,}",
        f"{figures.answered_per_s:,.0f}",
        _number(figures.p50_ms, 1),
        _number(figures.p95_ms, 1),
        _number(figures.p99_ms, 1),
        f"{figures.failures:,}",
    ]


def _notes(run: Run) -> Iterator[str]:
    if run.late_p99_ms is not None:
        yield f"99 % of the requests were sent at most {run.late_p99_ms:.1f} ms late, which is part of their latency"
    for stage, refused in run.refused.items():
        where = f" in “{stage}”" if run.stages else ""
        yield (
            f"{refused.requests:,} requests were refused{where}: p50 {_number(refused.p50_ms, 1)} ms, "
            f"p99 {_number(refused.p99_ms, 1)} ms"
        )
    if run.stages and run.resident_bytes:
        before, after = (size / 1e6 for size in run.resident_bytes)
        yield f"the service had {before:.1f} MB of memory before, and {after:.1f} MB after"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
