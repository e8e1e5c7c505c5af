"""What LoadGen is told: MLPerf's own settings for ResNet-50, and where these runs differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadtests.scenarios.loadgen import loadgen

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
Protocol = Literal["http", "grpc"]
Mode = Literal["performance", "accuracy"]

MLPERF_MODEL = "resnet50"
"""The image classifier among MLPerf's benchmarks."""

MLPERF_CONF = 0
"""Tells LoadGen to take the mlperf.conf that it was built with (mlcommons/inference, issue 2287)."""

MODES = {"performance": loadgen.TestMode.PerformanceOnly, "accuracy": loadgen.TestMode.AccuracyOnly}

# LoadGen makes its queries beforehand, for twice the minimum duration at these latencies, and stops when it has no
# more: shorter than half of this no service takes.
SINGLE_STREAM_EXPECTED_MS = 0.5
MULTI_STREAM_EXPECTED_MS = 2.0


@dataclass(frozen=True)
class Demand:
    """What these runs decide themselves.

    Attributes:
        min_duration_s: MLPerf's is 600 s.
        min_query_count: None is MLPerf's: 100, for MultiStream 662, for Offline 24,576 images.
        target_qps: Server: requests per second, on average.
        p99_ms: Server: what 99 % of the requests may take at most; MLPerf's for ResNet-50 is 15 ms.
        offline_qps: Offline: images per second that are expected at most; says how large the one query must be.
        images_per_request: Offline.
    """

    min_duration_s: float
    min_query_count: int | None
    target_qps: float
    p99_ms: float
    offline_qps: float
    images_per_request: int


def loadgen_settings(scenario: Scenario, mode: Mode, demand: Demand) -> loadgen.TestSettings:
    """LoadGen's settings for one run.

    Raises:
        RuntimeError: LoadGen has no settings of MLPerf's.
    """
    settings = loadgen.TestSettings()
    if settings.FromConfig("", MLPERF_MODEL, scenario, MLPERF_CONF):
        raise RuntimeError(f"LoadGen knows no settings of MLPerf's for {MLPERF_MODEL}, {scenario}")
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = MODES[mode]
    settings.min_duration_ms = round(1e3 * demand.min_duration_s)
    if demand.min_query_count is not None:
        settings.min_query_count = demand.min_query_count
    settings.single_stream_expected_latency_ns = 1e6 * SINGLE_STREAM_EXPECTED_MS
    settings.multi_stream_expected_latency_ns = 1e6 * MULTI_STREAM_EXPECTED_MS
    settings.server_target_qps = demand.target_qps
    settings.server_target_latency_ns = round(1e6 * demand.p99_ms)
    settings.offline_expected_qps = demand.offline_qps
    return settings


def images_per_request(scenario: Scenario, demand: Demand, settings: loadgen.TestSettings) -> int:
    """A query of MultiStream is one request, the one of Offline is many."""
    per_request: dict[Scenario, int] = {
        "SingleStream": 1,
        "MultiStream": settings.multi_stream_samples_per_query,
        "Server": 1,
        "Offline": demand.images_per_request,
    }
    return per_request[scenario]
