"""No request is lost while one replica after the other is restarted."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.faults import balancer
from tests.deploy.rolling_restart import restart_all
from tests.repositories import write_model

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if reason := balancer.missing():
        pytest.skip(reason)
    write_model(tmp_path)
    return tmp_path


async def test_no_request_fails_when_the_balancer_is_told_first(repository: Path) -> None:
    tallies = await restart_all(repository)
    assert not [f"{way}: {tally}" for way, tally in tallies.items() if tally.failed]


async def test_requests_are_refused_when_it_is_not(repository: Path) -> None:
    """What the preStop hook is for; who balances by itself loses nothing even so."""
    tallies = await restart_all(repository, drain=False)
    assert tallies["HTTP"].failed.keys() | tallies["gRPC"].failed.keys() >= {"503", "UNAVAILABLE"}
    assert not tallies["gRPC, balanced by its client"].failed
