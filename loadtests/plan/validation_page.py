"""Predicted and measured side by side, as a page of Markdown and as what goes into JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from loadtests.plan.plan_page import case_json, finite
from loadtests.plan.sizing import Spread
from loadtests.plan.validate import Compared, Validation


def validation_page(validation: Validation, facts: Mapping[str, str]) -> str:
    """A row for each load and figure; the prediction is the median over its seeds, with the range."""
    lines = ["# Predicted and measured", "", *(f"- {name}: {fact}" for name, fact in facts.items())]
    lines += [
        f"- Capacity: {validation.capacity_per_s:,.1f} requests/s predicted, with the load generator on the "
        "same cores: what it takes of them counts as the front's",
        "",
        "| load | requests | figure | predicted | range | measured | measured / predicted |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for load in validation.loads:
        start = f"| {load.fraction:.0%} | {load.measured.requests:,} |"
        for figure, predicted, measured in _figures(load):
            spread = f"{_number(predicted.low)} – {_number(predicted.high)}"
            lines.append(
                f"{start} {figure} | {_number(predicted.median)} | {spread} | {_number(measured)} "
                f"| {_number(_ratio(predicted, measured))} |"
            )
    lines += ["", "| load | refused or failed | sent late, p99 ms | load generator, ms of processor time a request |"]
    lines += ["| ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {load.fraction:.0%} | {load.measured.failed:.3%} | {_number(load.measured.late_p99_ms)} "
        f"| {load.client_ms:.3f} |"
        for load in validation.loads
    ]
    return "\n".join(lines) + "\n"


def validation_json(validation: Validation, facts: Mapping[str, str]) -> dict[str, Any]:
    """The same in figures; null: not finite, or not there."""
    return {
        "facts": dict(facts),
        "capacity_per_s": validation.capacity_per_s,
        "loads": [
            {
                "fraction": load.fraction,
                "client_ms": load.client_ms,
                "predicted": case_json(load.predicted),
                "measured": {
                    name: value if value is None else finite(value) for name, value in asdict(load.measured).items()
                },
                "ratios": {
                    figure: finite(_ratio(predicted, measured)) for figure, predicted, measured in _figures(load)
                },
            }
            for load in validation.loads
        ],
    }


def _figures(load: Compared) -> Iterator[tuple[str, Spread, float]]:
    """Name, predicted, measured."""
    yield "answers/s", load.predicted.spread(lambda outcome: outcome.answered_per_s), load.measured.answered_per_s
    yield "p50 ms", load.predicted.percentile_ms(0.50), load.measured.p50_ms
    yield "p99 ms", load.predicted.percentile_ms(0.99), load.measured.p99_ms
    if load.measured.mean_batch_size is not None:
        batch_size = load.predicted.spread(lambda outcome: outcome.mean_batch_size)
        yield "mean batch size", batch_size, load.measured.mean_batch_size


def _ratio(predicted: Spread, measured: float) -> float:
    return measured / predicted.median if predicted.median else math.nan


def _number(value: float) -> str:
    return f"{value:,.3g}" if math.isfinite(value) else "–"
