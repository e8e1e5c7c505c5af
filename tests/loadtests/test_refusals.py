from __future__ import annotations

import pytest

from loadtests.refusals import refused


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        ("503: queue is full", True),
        ("UNAVAILABLE: queue is full", True),
        ("500: broken", False),
        ("DEADLINE_EXCEEDED: ", False),
        ("ConnectionResetError: ", False),
    ],
)
def test_who_is_refused_is_told_that_the_service_is_busy(error: str | None, expected: bool) -> None:
    assert refused(error) is expected
