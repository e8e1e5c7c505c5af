from __future__ import annotations

import pytest

from loadtests.report.levels import Spread, levels_of
from loadtests.report.result import Load
from tests.loadtests.made_up import made_up_run


def test_levels_are_by_protocol_and_load() -> None:
    runs = [
        made_up_run("gRPC", Load("closed", 16), 1),
        made_up_run("HTTP", Load("closed", 4), 1),
        made_up_run("gRPC", Load("closed", 4), 1),
        made_up_run("gRPC", Load("closed", 16), 2),
    ]
    found = [(level.protocol, level.load.value, len(level.runs)) for level in levels_of(runs)]
    assert found == [("gRPC", 4, 1), ("gRPC", 16, 2), ("HTTP", 4, 1)]


def test_medians_and_ranges_are_over_the_rounds() -> None:
    runs = [made_up_run(number=number, images_per_s=rate) for number, rate in enumerate((90.0, 120.0, 100.0), 1)]
    (level,) = levels_of(runs)
    assert level.images_per_s == Spread(100.0, 90.0, 120.0, 3)
    assert level.requests == 3000
    assert Spread.of([None, 2.0]) == Spread(2.0, 2.0, 2.0, 1)
    assert Spread.of([None]) is None


def test_the_parts_of_a_mean_latency_add_up() -> None:
    (level,) = levels_of([made_up_run(p50_ms=7.0), made_up_run(number=2, p50_ms=9.0)])
    parts = level.where_the_time_went_ms
    assert parts["rest of the service"] == pytest.approx(5.0 - 4.7)
    assert parts["network and clients"] == pytest.approx((2.0 + 4.0) / 2)
    assert sum(parts.values()) == pytest.approx(8.0)


def test_no_parts_without_the_services_histograms() -> None:
    (level,) = levels_of([made_up_run(stage_ms={})])
    assert level.where_the_time_went_ms == {}


def test_shares_of_batch_sizes_are_over_all_rounds() -> None:
    runs = [made_up_run(batch_sizes={"5–8": 3, "over 8": 1}), made_up_run(number=2, batch_sizes={"1": 4})]
    (level,) = levels_of(runs)
    assert list(level.batch_shares.items()) == [("1", 0.5), ("5–8", 0.375), ("over 8", 0.125)]
