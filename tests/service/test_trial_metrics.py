from __future__ import annotations

from fractions import Fraction

from prometheus_client import CollectorRegistry, generate_latest

from service.trial import Answered, Compared, Dropped, Failed, Sent, Side, TakenUp
from service.trial_metrics import TrialMetrics
from tests.service.launch import metric_of

CURRENT, CANARY, SHADOW = Side("m", "1", "current"), Side("m", "2", "canary"), Side("m", "3", "shadow")
TRIAL = TakenUp("m", ((CURRENT, Fraction(9, 10)), (CANARY, Fraction(1, 10)), (SHADOW, Fraction(1, 4))))


def metrics() -> tuple[TrialMetrics, CollectorRegistry]:
    registry = CollectorRegistry()
    return TrialMetrics(registry), registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return metric_of(generate_latest(registry).decode(), f"fovea_rollout_{name}", **labels)


def test_a_trial_begins_at_0_and_ends() -> None:
    told, registry = metrics()
    told.observe(TRIAL)
    assert value(registry, "share", version="1", role="current") == 0.9
    assert value(registry, "share", version="3", role="shadow") == 0.25
    page = generate_latest(registry).decode()
    for name in ("compared_images_total", "agreed_images_total", "dropped_total"):
        assert f'fovea_rollout_{name}{{model="m",version="3"}} 0.0' in page
    assert 'fovea_rollout_failed_total{model="m",role="canary",version="2"} 0.0' in page
    told.observe(TakenUp("m", ()))
    assert "fovea_rollout_share{" not in generate_latest(registry).decode()


def test_each_event_is_counted() -> None:
    told, registry = metrics()
    told.observe(Sent(CANARY))
    told.observe(Answered(CANARY, 0.002, (0.5, 0.75)))
    told.observe(Failed(CANARY))
    told.observe(Dropped(SHADOW))
    told.observe(Compared(SHADOW, 4, 3, 2.5, 3.5))
    assert value(registry, "requests_total", version="2", role="canary") == 1
    assert value(registry, "duration_seconds_sum", role="canary") == 0.002
    assert value(registry, "confidence_sum", role="canary") == 1.25
    assert value(registry, "confidence_count", role="canary") == 2
    assert value(registry, "failed_total", role="canary") == 1
    assert value(registry, "dropped_total", version="3") == 1
    assert value(registry, "compared_images_total", version="3") == 4
    assert value(registry, "agreed_images_total", version="3") == 3
    assert value(registry, "compared_confidence_total", version="3", role="shadow") == 2.5
    assert value(registry, "compared_confidence_total", version="3", role="current") == 3.5
