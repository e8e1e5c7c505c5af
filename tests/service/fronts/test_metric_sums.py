"""Metrics of several processes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.fronts.metric_sums import Sums


def registry(counts: dict[str, int], seconds: list[float], *, depth: float | None = None) -> CollectorRegistry:
    made = CollectorRegistry()
    requests = Counter("requests", "Requests.", ["code"], registry=made)
    for code, count in counts.items():
        requests.labels(code).inc(count)
    times = Histogram("time_seconds", "Time.", buckets=(1, 10), registry=made)
    for second in seconds:
        times.observe(second)
    if depth is not None:
        Gauge("depth", "Waiting.", registry=made).set(depth)
    return made


def test_what_several_processes_counted_is_added() -> None:
    processes = [registry({"200": 3, "503": 1}, [0.5], depth=4), registry({"200": 5, "400": 2}, [5.0, 50.0])]
    page = generate_latest(Sums(process.collect() for process in processes)).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["requests_total", "200"] == 8
    assert samples["requests_total", "400"] == 2
    assert samples["requests_total", "503"] == 1
    assert samples["time_seconds_bucket", "1.0"] == 1
    assert samples["time_seconds_bucket", "10.0"] == 2
    assert samples["time_seconds_bucket", "+Inf"] == 3
    assert samples["time_seconds_count",] == 3
    assert samples["time_seconds_sum",] == 55.5
    assert samples["depth",] == 4
    assert page.count("# TYPE requests_total counter") == 1
