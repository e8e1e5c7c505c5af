"""What the service counted of itself, read from its Prometheus metrics."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtests.fetch import fetch


def read_metrics(url: str) -> list[Sample]:
    return parse_metrics(fetch(url).decode())


def parse_metrics(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def total(samples: Sequence[Sample], name: str, **labels: str) -> float:
    """The sum of a metric over every label that is not given."""
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def mean_between(before: Sequence[Sample], after: Sequence[Sample], name: str, **labels: str) -> float | None:
    """The mean of what a histogram observed between two readings; None: it observed nothing."""
    observed, count = (
        total(after, f"{name}_{part}", **labels) - total(before, f"{name}_{part}", **labels)
        for part in ("sum", "count")
    )
    return observed / count if count else None
