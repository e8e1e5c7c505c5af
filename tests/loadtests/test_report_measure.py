from __future__ import annotations

import pytest

from loadtests.metrics import parse_metrics
from loadtests.report.measure import batch_sizes, stage_means


def readings(counts: dict[str, int], queue_s: float, images: int) -> str:
    """A service's metrics after so many batches up to each size."""
    lines = ["# TYPE fovea_batch_size histogram"]
    lines += [f'fovea_batch_size_bucket{{le="{size}",model="m",version="1"}} {n}' for size, n in counts.items()]
    lines += ["# TYPE fovea_stage_duration_seconds histogram"]
    lines += [f'fovea_stage_duration_seconds_sum{{model="m",stage="queue",version="1"}} {queue_s}']
    lines += [f'fovea_stage_duration_seconds_count{{model="m",stage="queue",version="1"}} {images}']
    return "\n".join(lines) + "\n"


BEFORE = parse_metrics(readings({"1.0": 5, "2.0": 5, "4.0": 6, "8.0": 6, "+Inf": 6}, 1.0, 10))
AFTER = parse_metrics(readings({"1.0": 7, "2.0": 8, "4.0": 13, "8.0": 13, "+Inf": 14}, 1.5, 20))


def test_batch_sizes_are_those_between_the_readings() -> None:
    assert batch_sizes(BEFORE, AFTER) == {"1": 2, "2": 1, "3–4": 4, "over 8": 1}
    assert batch_sizes([], BEFORE) == {"1": 5, "3–4": 1}
    assert batch_sizes(AFTER, AFTER) == {}


def test_stages_that_were_observed_have_a_mean() -> None:
    assert stage_means(BEFORE, AFTER) == {"queue": pytest.approx(50.0)}
    assert stage_means(AFTER, AFTER) == {}
