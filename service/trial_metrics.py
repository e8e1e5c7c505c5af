"""What Prometheus is told of versions on trial."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.trial import Answered, Compared, Dropped, Event, Failed, Role, Sent, Side, TakenUp

DURATION_BUCKETS_S = (*(m * 10.0**e for e in range(-4, 1) for m in (1, 2.5, 5)), 10.0)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
SIDE = ("model", "version", "role")
PAIR = ("model", "version")


class TrialMetrics:
    """Args:
    registry: where they are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._share = Gauge(
            "fovea_rollout_share", "Declared share of the requests that name no version.", SIDE, registry=registry
        )
        self._requests = Counter(
            "fovea_rollout_requests", "Requests sent to a version on trial; a shadow's are copies of inferences.", SIDE,
            registry=registry,
        )  # fmt: skip
        self._failed = Counter(
            "fovea_rollout_failed", "Inferences that gave no answer, or scores or features that are not finite.", SIDE,
            registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            "fovea_rollout_duration_seconds", "Time of one inference, queue included.", SIDE,
            buckets=DURATION_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._confidence = Histogram(
            "fovea_rollout_confidence", "Probability of the class that an image was taken for.", SIDE,
            buckets=CONFIDENCE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._compared = Counter(
            "fovea_rollout_compared_images", "Images that the shadow and the current version answered.", PAIR,
            registry=registry,
        )  # fmt: skip
        self._agreed = Counter(
            "fovea_rollout_agreed_images", "Those that both took for the same class.", PAIR, registry=registry
        )
        self._compared_confidence = Counter(
            "fovea_rollout_compared_confidence", "Sum of the confidences in those that were compared, by role.", SIDE,
            registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "fovea_rollout_dropped", "Copies that were not made: something waited.", PAIR, registry=registry
        )
        self._declared: dict[str, list[Side]] = {}
        self._children: dict[Side, tuple[Counter, Histogram, Histogram]] = {}

    def observe(self, event: Event) -> None:
        match event:
            case Sent(side):
                self._of(side)[0].inc()
            case Answered(side, duration_s, confidences):
                _, duration, confidence = self._of(side)
                duration.observe(duration_s)
                for each in confidences:
                    confidence.observe(each)
            case Failed(side):
                self._failed.labels(*_labels(side)).inc()
            case Dropped(side):
                self._dropped.labels(side.model, side.version).inc()
            case Compared(side):
                pair = side.model, side.version
                self._compared.labels(*pair).inc(event.images)
                self._agreed.labels(*pair).inc(event.agreed)
                self._compared_confidence.labels(*_labels(side)).inc(event.confidence)
                self._compared_confidence.labels(*pair, "current").inc(event.current_confidence)
            case TakenUp(model, shares):
                for side in self._declared.pop(model, []):
                    self._share.remove(*_labels(side))
                for side, share in shares:
                    self._share.labels(*_labels(side)).set(float(share))
                    self._begin(side)
                self._declared[model] = [side for side, _ in shares]

    def _begin(self, side: Side) -> None:
        """All there is of a side, at 0: what is not there yet has no rate."""
        self._of(side)
        self._failed.labels(*_labels(side))
        if side.role == "shadow":
            pair = side.model, side.version
            for counter in (self._compared, self._agreed, self._dropped):
                counter.labels(*pair)
            roles: tuple[Role, ...] = ("current", "shadow")
            for role in roles:
                self._compared_confidence.labels(*pair, role)

    def _of(self, side: Side) -> tuple[Counter, Histogram, Histogram]:
        # Finding a metric's child by its labels costs more than to observe with it.
        found = self._children.get(side)
        if found is None:
            labels = _labels(side)
            found = self._requests.labels(*labels), self._duration.labels(*labels), self._confidence.labels(*labels)
            self._children[side] = found
        return found


def _labels(side: Side) -> tuple[str, str, str]:
    return side.model, side.version, side.role
