"""Metrics of readiness: the service's, and which model version is ready or failed, and why."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.catalogue import Catalogue
from service.lifecycle import Lifecycle

MAX_REASON_LENGTH = 200


class ModelStates(Collector):
    """Collector of what is wanted: a model that was unloaded, or that nobody asked for, is not told of."""

    def __init__(self, catalogue: Catalogue, lifecycle: Lifecycle) -> None:
        self._catalogue = catalogue
        self._lifecycle = lifecycle

    def collect(self) -> Iterable[Metric]:
        is_ready = self._lifecycle.not_ready is None
        yield GaugeMetricFamily("fovea_ready", "Whether the service is ready.", value=float(is_ready))
        ready = GaugeMetricFamily("fovea_model_ready", "Whether a version takes requests.", labels=["model", "version"])
        failed = GaugeMetricFamily(
            "fovea_model_failed",
            "1 for each version, or model as a whole, that could not be loaded the last time.",
            labels=["model", "version", "reason"],
        )
        # Metrics are collected in a thread, while models come and go.
        for model in list(self._catalogue.models.values()):
            if not model.wanted:
                continue
            for entry in list(model.versions.values()):
                ready.add_metric([model.name, entry.version], float(entry.served is not None))
                if entry.reason:
                    failed.add_metric([model.name, entry.version, _shown(entry.reason)], 1.0)
            if model.reason:
                failed.add_metric([model.name, "", _shown(model.reason)], 1.0)
        yield ready
        yield failed


def _shown(reason: str) -> str:
    """A reason as a label: of one line, and short."""
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON_LENGTH else line[:MAX_REASON_LENGTH] + "…"
