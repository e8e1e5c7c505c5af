"""How long requests take, as a histogram that costs them next to nothing.

prometheus_client's own takes two locks and a walk along the buckets: as much as all else that is counted of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class RequestDurations(Collector):
    """Collector; everything is observed in one thread, the event loop's.

    Args:
        buckets_s: upper bounds, ascending.
    """

    def __init__(self, buckets_s: Sequence[float]) -> None:
        self._buckets_s = buckets_s
        bounds = (*buckets_s, float("inf"))
        self._bounds = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums_s: dict[tuple[str, str], float] = {}

    def observe(self, protocol: str, model: str, seconds: float) -> None:
        key = (protocol, model)
        counts = self._counts.get(key)
        if counts is None:
            # Its sum first: the metrics may be collected in between.
            self._sums_s[key] = 0.0
            counts = self._counts[key] = [0] * len(self._bounds)
        counts[bisect_left(self._buckets_s, seconds)] += 1
        self._sums_s[key] += seconds

    def collect(self) -> Iterable[Metric]:
        metric = HistogramMetricFamily(
            "fovea_request_duration_seconds", "Time of each request that was answered.", labels=["protocol", "model"]
        )
        for key, counts in list(self._counts.items()):
            buckets = list(zip(self._bounds, accumulate(counts), strict=True))
            metric.add_metric(list(key), buckets, self._sums_s[key])
        yield metric
