from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtests.plan.curve import LIKELY, Curve, Front, Point, read_curve

POINTS = (Point(batch_size=1, median_ms=2), Point(batch_size=2, median_ms=3), Point(batch_size=8, median_ms=9))
CURVE = Curve(max_batch_size=8, points=POINTS)


def test_between_two_measured_sizes_the_time_is_on_the_line_between_them() -> None:
    times_ms = 1e3 * CURVE.times_s(8)[:, 0]
    assert times_ms[1:].tolist() == pytest.approx([2, 3, 4, 5, 6, 7, 8, 9])


def test_a_padded_batch_takes_the_time_of_the_next_measured_size() -> None:
    times_ms = 1e3 * CURVE.model_copy(update={"padded": True}).times_s(8)[:, 0]
    assert times_ms[1:].tolist() == pytest.approx([2, 3, 9, 9, 9, 9, 9, 9])


def test_more_instances_than_cores_had_a_share_of_a_core_each() -> None:
    shared = CURVE.model_copy(update={"instances": 4, "cores": 2})
    assert shared.times_s(8) == pytest.approx(CURVE.times_s(8) / 2)
    assert CURVE.model_copy(update={"instances": 2, "cores": 4}).times_s(8) == pytest.approx(CURVE.times_s(8))


def test_a_batch_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="ends at 8"):
        CURVE.times_s(9)


def test_times_are_drawn_as_they_were_measured_and_by_the_seed() -> None:
    point = Point(batch_size=1, median_ms=2, likely_ms=(1, 2, 3))
    curve = Curve(max_batch_size=1, points=(point,))
    drawn, again, other = ([curve.service_s(1, seed)(1) for _ in range(1)] for seed in (0, 0, 1))
    assert drawn == again
    service_s = curve.service_s(1, 0)
    times_ms = 1e3 * np.array([service_s(1) for _ in range(5000)])
    assert np.mean(times_ms) == pytest.approx(2, rel=0.02)
    assert np.quantile(times_ms, 0.1) == pytest.approx(1.2, rel=0.05)
    assert len(np.unique(times_ms)) == len(LIKELY)
    assert other != drawn


def test_a_curve_is_read_as_it_was_written(tmp_path: Path) -> None:
    curve = CURVE.model_copy(update={"front": Front(transport_ms=0.25, source="given"), "cores": 2})
    (tmp_path / "curve.json").write_text(curve.model_dump_json())
    assert read_curve(tmp_path / "curve.json") == curve


def test_few_words_are_enough(tmp_path: Path) -> None:
    (tmp_path / "curve.json").write_text('{"max_batch_size": 1, "points": [{"batch_size": 1, "median_ms": 3.5}]}')
    curve = read_curve(tmp_path / "curve.json")
    assert (curve.instances, curve.cores, curve.front.request_ms) == (1, None, 0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "JSON"),
        ('{"max_batch_size": 1, "points": []}', "points"),
        ('{"max_batch_size": 0, "points": [{"batch_size": 1, "median_ms": 1}]}', "max_batch_size"),
        ('{"max_batch_size": 1, "point": [{"batch_size": 1, "median_ms": 1}]}', "point"),
        (None, "No such file"),
    ],
)
def test_what_is_no_curve_is_an_error_that_says_why(tmp_path: Path, text: str | None, what: str) -> None:
    path = tmp_path / "curve.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=f"(?s)curve.json is no curve.*{what}"):
        read_curve(path)
