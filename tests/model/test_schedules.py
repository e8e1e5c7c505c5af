from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

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


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("linear", lambda optimizer: LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=100)),
        ("step", lambda optimizer: MultiStepLR(optimizer, [50, 75], gamma=0.1)),
        ("cosine", lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)),
    ],
)
def test_they_are_pytorchs(name: str, scheduler: Callable[[Optimizer], LRScheduler]) -> None:
    """The other two PyTorch has not: its one-cycle rises in half a wave too, and a constant needs none."""
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    theirs = scheduler(optimizer)
    for step in range(100):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(SCHEDULES[name](step, 100), abs=1e-9)
        optimizer.step()
        theirs.step()
