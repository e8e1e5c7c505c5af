"""The counters of Triton's own metrics, from what its statistics extension tells, for dashboards that know those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.catalogue import Catalogue
from service.loading import ServedVersion
from service.statistics import FAILURE_REASONS, VersionStatistics

COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "nv_inference_request_success": ("Requests that were answered.", lambda counted: counted.success.count),
    "nv_inference_count": ("Rows that were inferred.", lambda counted: counted.inference_count),
    "nv_inference_exec_count": ("Batches that were run.", lambda counted: counted.execution_count),
    "nv_inference_request_duration_us": (
        "Time of the requests that were answered, from the queue to the answer.",
        lambda counted: counted.success.ns // 1000,
    ),
    "nv_inference_queue_duration_us": ("Their time in the queue.", lambda counted: counted.queue.ns // 1000),
    "nv_inference_compute_input_duration_us": (
        "The time to assemble their batches.",
        lambda counted: counted.requests.compute_input.ns // 1000,
    ),
    "nv_inference_compute_infer_duration_us": (
        "The time to infer their batches.",
        lambda counted: counted.requests.compute_infer.ns // 1000,
    ),
    "nv_inference_compute_output_duration_us": (
        "The time to take their batches apart.",
        lambda counted: counted.requests.compute_output.ns // 1000,
    ),
}


class TritonMetrics(Collector):
    """Collector of every version that is served. It costs a request nothing: it is read when it is asked for.

    The counters have Triton's names, which do not end in `_total`; their type is said to be unknown therefore.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def collect(self) -> Iterable[Metric]:
        served = self._catalogue.served()
        for name, (text, value) in COUNTERS.items():
            metric = Metric(name, text, "unknown")
            for version in served:
                metric.add_sample(name, _labels(version), value(version.statistics))
            yield metric
        failures = Metric("nv_inference_request_failure", "Requests that failed, by reason.", "unknown")
        pending = Metric("nv_inference_pending_request_count", "Requests that wait for an instance.", "gauge")
        for version in served:
            for reason in FAILURE_REASONS:
                labels = _labels(version) | {"reason": reason}
                failures.add_sample(failures.name, labels, version.statistics.failures[reason])
            pending.add_sample(pending.name, _labels(version), version.batcher.waiting)
        yield failures
        yield pending


def _labels(version: ServedVersion) -> dict[str, Any]:
    return {"model": version.name, "version": version.version}
