from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from loadtests.openloop import Outcome as Sent
from loadtests.plan.curve import Curve, Point
from loadtests.plan.fleet import Outcome
from loadtests.plan.served import Served
from loadtests.plan.sizing import Case
from loadtests.plan.validate import Compared, Measured, Validation, measured_in, require_same
from loadtests.plan.validation_page import validation_json, validation_page


def test_latencies_count_from_the_scheduled_moment_and_the_first_requests_do_not() -> None:
    # Ten: the first is the warm-up; each is sent 1 ms late; the last is refused.
    sent = [Sent(number, 0.001, 0.001 + 0.01 * (number + 1)) for number in range(9)] + [Sent(9.0, 0.001, 0.5, "503")]
    found = measured_in(sent, 2.5)
    assert found.requests == 10
    assert found.answered_per_s == pytest.approx(9 / 9.5)
    assert found.p50_ms == pytest.approx(61)
    assert found.p99_ms == math.inf
    assert found.failed == pytest.approx(1 / 9)
    assert found.late_p99_ms == pytest.approx(1)
    assert found.mean_batch_size == 2.5


def test_nothing_sent_is_nothing_seen() -> None:
    found = measured_in([], None)
    assert (found.requests, found.answered_per_s, found.p99_ms) == (0, 0, math.inf)


def test_errors_are_ratios() -> None:
    latency_s = np.array([0.01, 0.02, 0.04])
    predicted = Case(100.0, 1, [Outcome(latency_s * factor, 100.0, 2.0, 0.5, 0.1, None) for factor in (0.5, 1, 2)])
    measured = Measured(300, 99.0, 30.0, math.inf, 0.02, 1.5, None)
    validation = Validation(200.0, [Compared(0.5, 0.25, predicted, measured)])
    page = validation_page(validation, {"Served": "colours"})
    assert "- Served: colours" in page
    assert "| 50% | 300 | answers/s | 100 | 100 – 100 | 99 | 0.99 |" in page
    assert "| 50% | 300 | p50 ms | 20 | 10 – 40 | 30 | 1.5 |" in page
    assert "| 50% | 300 | p99 ms | 40 | 20 – 80 | – | – |" in page
    assert "mean batch size" not in page
    assert "| 50% | 2.000% | 1.5 | 0.250 |" in page

    (load,) = validation_json(validation, {"Served": "colours"})["loads"]
    assert load["ratios"] == {"answers/s": pytest.approx(0.99), "p50 ms": pytest.approx(1.5), "p99 ms": None}
    assert load["measured"]["p99_ms"] is None
    assert load["predicted"]["p50_ms"] == {"median": 20, "low": 10, "high": 40}


def test_a_curve_of_something_else_is_refused() -> None:
    curve = Curve(max_batch_size=8, instances=3, points=(Point(batch_size=8, median_ms=1),))
    served = Served("colours", "1", Path("model.onnx"), "CPUExecutionProvider", 3, 8, 1024, 0.0)
    require_same(curve, served)
    other = curve.model_copy(update={"max_queue_delay_ms": 2.0})
    with pytest.raises(SystemExit, match=r"the curve has max_queue_delay_ms 2\.0, the service 0\.0: measure it again"):
        require_same(other, served)
