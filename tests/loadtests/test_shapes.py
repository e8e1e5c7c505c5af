from __future__ import annotations

from itertools import islice, pairwise

import pytest

from loadtests.shapes import SHAPES, Stage, due, stage_at, stages


def test_a_closed_load_has_so_many_users_in_each_stage() -> None:
    assert stages("steps", 16, 60, None) == [
        Stage("step 1 of 5: 3 users", 12, 3, None),
        Stage("step 2 of 5: 6 users", 12, 6, None),
        Stage("step 3 of 5: 10 users", 12, 10, None),
        Stage("step 4 of 5: 13 users", 12, 13, None),
        Stage("step 5 of 5: 16 users", 12, 16, None),
    ]
    assert [stage.users for stage in stages("spike", 16, 60, None)] == [2, 16, 2]


def test_an_open_load_has_all_users_at_a_rate_in_each_stage() -> None:
    assert stages("overload", 16, 60, 10.0) == [
        Stage("before: 20 requests/s", 20, 16, 1.25),
        Stage("overload: 160 requests/s", 20, 16, 10.0),
        Stage("after: 20 requests/s", 20, 16, 1.25),
    ]


def test_without_a_shape_there_is_one_stage() -> None:
    assert stages(None, 16, 15, None) == [Stage("requests", 15, 16, None)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_a_user_and_an_end(shape: str) -> None:
    found = stages(shape, 1, SHAPES[shape].duration_s, None)
    assert all(stage.users == 1 for stage in found)
    assert sum(stage.duration_s for stage in found) == pytest.approx(SHAPES[shape].duration_s)
    assert len({stage.label for stage in found}) == len(found)


@pytest.mark.parametrize("shape", SHAPES)
def test_stages_shorter_than_a_second_are_refused(shape: str) -> None:
    with pytest.raises(ValueError, match="too short"):
        stages(shape, 16, len(SHAPES[shape].levels) - 1, None)


def test_the_stage_of_a_moment() -> None:
    before, spike, after = found = stages("spike", 16, 3, None)
    moments = {0.0: before, 0.999: before, 1.0: spike, 1.999: spike, 2.0: after, 2.999: after, 3.0: after, 99.0: after}
    assert {moment_s: stage_at(found, moment_s) for moment_s in moments} == moments


def test_requests_are_due_at_the_rate_of_each_stage() -> None:
    found = stages("spike", 1, 300, 80.0)
    moments = list(due(found, seed=1))
    assert all(moment <= later for moment, later in pairwise(moments))
    assert moments[-1] < 300
    counts = [sum(stage_at(found, moment_s) is stage for moment_s in moments) for stage in found]
    assert counts == pytest.approx([1000, 8000, 1000], rel=0.1)


def test_without_an_end_requests_are_due_forever() -> None:
    moments = list(islice(due(stages(None, 1, float("inf"), 10.0), seed=1), 10_000))
    assert moments[-1] == pytest.approx(1000, rel=0.1)
