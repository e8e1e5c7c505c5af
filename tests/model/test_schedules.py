from __future__ import annotations

import pytest

from model.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0.01]),
        ("step", [1, 1, 0.1, 0.01, 0.01]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0.000247]),
        ("one-cycle", [0.04, 0.84, 0.811745, 0.283058, 0.000503]),
    ],
)
def test_the_rate_over_a_hundred_steps(name: str, factors: list[float]) -> None:
    assert [SCHEDULES[name](step, 100) for step in (0, 25, 50, 75, 99)] == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_rate_is_negative_or_above_the_highest(name: str, steps: int) -> None:
    assert all(0 < SCHEDULES[name](step, steps) <= 1 for step in range(steps))


def test_the_linear_one_is_that_of_the_bundled_model() -> None:
    """To the last bit: a run with it must stay the same run."""
    assert all(SCHEDULES["linear"](step, 2400) == 1 - step / 2400 for step in range(2400))
