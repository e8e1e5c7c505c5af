"""How a load goes on over time: stages, each with so many users, or so many requests per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadtests.openloop import arrivals
from loadtests.report.numbers import rate_text


class Shape(NamedTuple):
    """Stages of equal length.

    Attributes:
        duration_s: of all stages together, unless another is given.
        levels: each stage's name and its share of the whole load.
    """

    duration_s: int
    levels: dict[str, float]


CALM = 1 / 8
"""The share of the load before and after the whole of it."""

SHAPES = {
    "steps": Shape(60, {f"step {step} of 5": step / 5 for step in range(1, 6)}),
    "spike": Shape(60, {"before": CALM, "spike": 1.0, "after": CALM}),
    "soak": Shape(3600, {f"part {part} of 10": 1.0 for part in range(1, 11)}),
    "overload": Shape(60, {"before": CALM, "overload": 1.0, "after": CALM}),
}

OVERLOAD = 5
"""The whole of an overload, as a multiple of the rate that the service is known to answer."""


class Stage(NamedTuple):
    """A part of a run; a tuple, as locust sends it to its workers.

    Attributes:
        label: what its requests are filed under.
        users: of a closed load so many as the stage has; of an open one always all.
        rate_per_user: requests per second of an open load, at random moments; None: closed, one after another.
    """

    label: str
    duration_s: float
    users: int
    rate_per_user: float | None


def stages(shape: str | None, users: int, duration_s: float, rate_per_user: float | None) -> list[Stage]:
    """The stages of a run.

    Args:
        shape: one of SHAPES; None: a single stage with the whole load.
        users: when there are most of them; at any time there is at least one.
        duration_s: of all stages together.
        rate_per_user: of an open load, when it is highest.

    Raises:
        ValueError: a stage would be shorter than a second, which is how often locust looks.
    """
    if shape is None:
        return [Stage("requests", duration_s, users, rate_per_user)]
    levels = SHAPES[shape].levels
    each_s = duration_s / len(levels)
    if each_s < 1:
        raise ValueError(f"{shape} has {len(levels)} stages of a second or more, and {duration_s:g} s are too short")
    if rate_per_user is None:
        counts = {name: max(1, round(share * users)) for name, share in levels.items()}
        return [
            Stage(f"{name}: {count} {'user' if count == 1 else 'users'}", each_s, count, None)
            for name, count in counts.items()
        ]
    return [
        Stage(f"{name}: {rate_text(users * share * rate_per_user)} requests/s", each_s, users, share * rate_per_user)
        for name, share in levels.items()
    ]


def stage_at(stages: Sequence[Stage], moment_s: float) -> Stage:
    """The stage at a moment, from the start of the first; the last one from then on."""
    for stage in stages[:-1]:
        moment_s -= stage.duration_s
        if moment_s < 0:
            return stage
    return stages[-1]


def due(stages: Sequence[Stage], seed: int) -> Iterator[float]:
    """The moments at which one user of an open load is to send, in seconds from the start of the first stage."""
    start_s = 0.0
    for number, stage in enumerate(stages):
        assert stage.rate_per_user is not None
        for moment_s in arrivals(stage.rate_per_user, stage.duration_s, seed + number):
            yield start_s + moment_s
        start_s += stage.duration_s
