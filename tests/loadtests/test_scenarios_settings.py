from __future__ import annotations

from typing import get_args

import pytest

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed (package mlcommons-loadgen)")

import mlperf_loadgen as loadgen

from loadtests.scenarios.settings import Demand, Scenario, images_per_request, loadgen_settings

OURS = Demand(
    min_duration_s=60.0, min_query_count=None, target_qps=50.0, p99_ms=7.5, offline_qps=300.0, images_per_request=4
)


@pytest.mark.parametrize(
    ("scenario", "count"), [("SingleStream", 100), ("MultiStream", 662), ("Server", 100), ("Offline", 24576)]
)
def test_what_is_not_ours_is_mlperfs(scenario: Scenario, count: int) -> None:
    settings = loadgen_settings(scenario, "performance", OURS)
    assert settings.scenario == getattr(loadgen.TestScenario, scenario)
    assert settings.mode == loadgen.TestMode.PerformanceOnly
    assert settings.min_query_count == count
    assert settings.single_stream_target_latency_percentile == 0.9
    assert settings.multi_stream_target_latency_percentile == 0.99
    assert settings.multi_stream_samples_per_query == 8
    assert settings.server_target_latency_percentile == 0.99
    assert settings.server_max_async_queries == 0
    assert settings.qsl_rng_seed
    assert settings.sample_index_rng_seed
    assert settings.schedule_rng_seed


def test_what_is_ours() -> None:
    settings = loadgen_settings("Server", "accuracy", OURS)
    assert settings.mode == loadgen.TestMode.AccuracyOnly
    assert settings.min_duration_ms == 60_000
    assert settings.server_target_qps == 50
    assert settings.server_target_latency_ns == 7_500_000
    assert settings.offline_expected_qps == 300


def test_a_query_of_multistream_is_one_request() -> None:
    settings = loadgen_settings("MultiStream", "performance", OURS)
    assert [images_per_request(scenario, OURS, settings) for scenario in get_args(Scenario)] == [1, 8, 1, 4]
