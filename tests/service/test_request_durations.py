from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.request_durations import RequestDurations

BUCKETS_S = (0.001, 0.01, 2.5)


def test_it_is_as_prometheus_clients_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = RequestDurations(BUCKETS_S)
    ours.register(durations)
    text = "Time of each request that was answered."
    own = Histogram("fovea_request_duration_seconds", text, ["protocol", "model"], buckets=BUCKETS_S, registry=theirs)
    for seconds in (0.0, 0.001, 0.0011, 0.25, 2.5, 2.6, 100.0):
        for protocol, model in (("http", "cats"), ("grpc", "")):
            durations.observe(protocol, model, seconds)
            own.labels(protocol, model).observe(seconds)
    without_created = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == without_created
