"""How many inputs a test tries, and how many were tried in all.

`FOVEA_TEST_FUZZ_SCALE=10` tries ten times as many in the long tests, and other ones every time.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

Input = TypeVar("Input")

SCALE = float(os.environ.get("FOVEA_TEST_FUZZ_SCALE", "1"))
MANY = 1000
"""Inputs, from which on a campaign ends with a look at the memory."""
REPEATED = 200
"""Inputs that are tried again and again for that: new ones may need more memory than any before."""
ROUNDS = int(5 * max(1, SCALE))
MAX_GROWTH = 1.04
"""Of the memory, from the first of these rounds to the last."""
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
    memory_bytes: Callable[[], int] | None = None,
) -> None:
    """Check so many inputs: at scale 1 the same ones in every run of the same tests.

    Alone it gets others than among all: Hypothesis draws from the constants of the modules that are imported.

    Args:
        memory_bytes: of what they are tried on; where they are many, some are repeated, and it must not grow.
    """
    last: deque[Input] = deque(maxlen=REPEATED)

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
        TRIED[name] += 1
        last.append(value)
        check(value)

    trial()
    if memory_bytes and inputs >= MANY:
        after_round = []
        for _ in range(1 + ROUNDS):
            for value in last:
                check(value)
            after_round.append(memory_bytes())
        assert after_round[-1] <= MAX_GROWTH * after_round[0], after_round
