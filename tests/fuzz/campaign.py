"""How many inputs a test tries, and how many were tried in all.

`FOVEA_TEST_FUZZ_SCALE=10` tries ten times as many in the long tests, and other ones every time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

Input = TypeVar("Input")

SCALE = float(os.environ.get("FOVEA_TEST_FUZZ_SCALE", "1"))
TRIED: Counter[str] = Counter()
"""Inputs by campaign, of this run."""


def campaign(short: int, long: int) -> pytest.MarkDecorator:
    """A test with the argument `inputs`: so many in `make test`, and so many more in `make test-all`."""
    return pytest.mark.parametrize(
        "inputs",
        [
            pytest.param(short, id="short"),
            pytest.param(
                int(long * SCALE), id="long", marks=[pytest.mark.system, pytest.mark.timeout(300 * max(1, SCALE))]
            ),
        ],
    )


def try_inputs(
    name: str,
    inputs: int,
    strategy: SearchStrategy[Input],
    check: Callable[[Input], object],
    half_way: Callable[[], None],
) -> None:
    """Check so many inputs: the same ones in every run of the same scale 1.

    Args:
        half_way: called once half of them were tried.
    """
    tried = 0

    @settings(
        max_examples=inputs,
        derandomize=SCALE == 1,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(strategy)
    def trial(value: Input) -> None:
        nonlocal tried
        tried += 1
        TRIED[name] += 1
        if tried == inputs // 2:
            half_way()
        check(value)

    trial()
