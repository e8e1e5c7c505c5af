from __future__ import annotations

import pytest

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed (package mlcommons-loadgen)")

from loadtests.scenarios.logs import Verdict
from loadtests.scenarios.report import Accuracy, Performance, Result, report
from loadtests.scenarios.settings import Scenario
from loadtests.scenarios.system import Outcome

ANSWERED = Outcome(requests=6000, failed=0, first_error="", most_in_flight=12)
FAILED = Outcome(requests=6000, failed=2, first_error="UNAVAILABLE: queue full", most_in_flight=3000)
VALUES = {
    "90.00 percentile latency (ns)": "1234567",
    "99.00 percentile latency (ns)": "9876543",
    "Scheduled samples per second": "99.871",
    "Samples per second": "1234.56",
}
VALID = Verdict(True, (), VALUES)
INVALID = Verdict(False, ("Reduce target QPS to improve latency.",), VALUES)


@pytest.mark.parametrize(
    ("scenario", "metric"),
    [
        ("SingleStream", "p90 1.23 ms"),
        ("MultiStream", "p99 9.88 ms"),
        ("Server", "99.9 scheduled qps, p99 9.88 ms"),
        ("Offline", "1,234.6 images/s"),
    ],
)
def test_each_scenario_has_mlperfs_metric(scenario: Scenario, metric: str) -> None:
    performance = Performance(ANSWERED, VALID, queries=6001, images_per_query=1, mean_batch_size=1.5)
    lines = report([Result(scenario, "grpc", performance, Accuracy(ANSWERED, 9, 10))], {"Served": "x"}).splitlines()
    assert "- Served: x" in lines
    assert f"| {scenario} | gRPC | VALID | {metric} | 0.9000 of 10 | 6,001 | 1 | 0 | 12 | 1.50 |" in lines


def test_why_a_run_is_invalid() -> None:
    performance = Performance(ANSWERED, INVALID, queries=6001, images_per_query=1, mean_batch_size=None)
    page = report([Result("Server", "http", performance, None)], {})
    assert "| Server | HTTP | INVALID | 99.9 scheduled qps, p99 9.88 ms | – | 6,001 | 1 | 0 | 12 | – |" in page
    assert page.endswith("- Server over HTTP: Reduce target QPS to improve latency.\n")


def test_figures_of_a_run_with_failed_requests_are_left_out() -> None:
    performance = Performance(FAILED, VALID, queries=6001, images_per_query=1, mean_batch_size=1.5)
    page = report([Result("Server", "grpc", performance, Accuracy(FAILED, 9, 10))], {})
    assert "| Server | gRPC | does not count | – | – | 6,001 | 1 | 4 | 3,000 | 1.50 |" in page
    failures = page.splitlines()[-2:]
    assert failures == [
        f"- Server over gRPC, {mode}: 2 of 6,000 requests; the first: UNAVAILABLE: queue full"
        for mode in ("performance", "accuracy")
    ]


def test_accuracy_alone() -> None:
    page = report([Result("Offline", "http", None, Accuracy(ANSWERED, 10, 10))], {})
    assert "| Offline | HTTP | – | – | 1.0000 of 10 | – | – | 0 | 12 | – |" in page
    assert "INVALID" not in page
