from __future__ import annotations

import pytest

from loadtests.metrics import mean_between, parse_metrics, total

BEFORE = parse_metrics("""\
# TYPE fovea_batch_size histogram
fovea_batch_size_bucket{le="+Inf",model="colours",version="1"} 3.0
fovea_batch_size_count{model="colours",version="1"} 3.0
fovea_batch_size_sum{model="colours",version="1"} 12.0
""")

AFTER = parse_metrics("""\
# TYPE fovea_requests counter
fovea_requests_total{code="OK",model="colours",protocol="grpc"} 7.0
fovea_requests_total{code="OK",model="shapes",protocol="grpc"} 2.0
fovea_requests_total{code="INTERNAL",model="",protocol="grpc"} 1.0
fovea_requests_total{code="200",model="colours",protocol="http"} 5.0
# TYPE fovea_batch_size histogram
fovea_batch_size_bucket{le="+Inf",model="colours",version="1"} 5.0
fovea_batch_size_count{model="colours",version="1"} 5.0
fovea_batch_size_sum{model="colours",version="1"} 20.0
fovea_batch_size_count{model="shapes",version="1"} 2.0
fovea_batch_size_sum{model="shapes",version="1"} 2.0
# TYPE fovea_stage_duration_seconds histogram
fovea_stage_duration_seconds_count{model="colours",version="1",stage="queue"} 4.0
fovea_stage_duration_seconds_sum{model="colours",version="1",stage="queue"} 0.5
fovea_stage_duration_seconds_count{model="colours",version="1",stage="decode"} 4.0
fovea_stage_duration_seconds_sum{model="colours",version="1",stage="decode"} 8.0
""")


def test_total_sums_over_the_labels_that_are_not_given() -> None:
    assert total(AFTER, "fovea_requests_total", protocol="grpc", code="OK") == 9
    assert total(AFTER, "fovea_requests_total") == 15
    assert total(AFTER, "fovea_nothing") == 0


def test_mean_is_of_what_was_observed_between_the_readings() -> None:
    assert mean_between(BEFORE, AFTER, "fovea_batch_size") == pytest.approx((8 + 2) / (2 + 2))
    assert mean_between(BEFORE, AFTER, "fovea_batch_size", model="colours") == pytest.approx(8 / 2)
    assert mean_between(BEFORE, AFTER, "fovea_stage_duration_seconds", stage="queue") == pytest.approx(0.125)


def test_no_mean_of_nothing() -> None:
    assert mean_between(AFTER, AFTER, "fovea_batch_size") is None
