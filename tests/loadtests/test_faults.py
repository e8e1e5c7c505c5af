"""What the table of faults in docs/operations.md claims is so: each fault is provoked, for a short time."""

from __future__ import annotations

from collections import Counter

import pytest

from loadtests.faults.__main__ import main
from loadtests.faults.callers import Ending, Tally
from loadtests.faults.fault import HEAD, Fault, Finding, row
from loadtests.faults.faults import FAULTS

SECONDS = 0.5


@pytest.mark.system
@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in FAULTS.items()])
async def test_nothing_is_lost_that_need_not_be(fault: Fault) -> None:
    if reason := fault.missing():
        pytest.skip(reason)
    finding = await fault.provoke(SECONDS)
    assert all(tally.answered for tally in finding.tallies.values())
    if not fault.loses:
        assert finding.lost == 0, row(fault, finding)
    # After SIGTERM there is nobody to ask again.
    assert fault.name == "sigterm" or finding.unanswered == 0, row(fault, finding)


def test_a_tally_knows_what_was_accepted() -> None:
    tally = Tally()
    for ending in (Ending.ANSWERED, Ending.ANSWERED, Ending.REFUSED, Ending.UNREACHED, Ending.LOST):
        tally.count(ending, "words")
    assert (tally.answered, tally.accepted, tally.unreached) == (2, 3, 1)
    assert tally.refused == tally.lost == Counter(words=1)


def test_a_row_says_what_was_lost() -> None:
    async def never(seconds: float) -> Finding:
        raise AssertionError(seconds)

    fault = Fault("pod-killed", "Pod killed", never)
    well = Finding("killed", "replaced", {"HTTP": Tally(answered=1200), "gRPC": Tally(answered=7)})
    assert row(fault, well) == "| Pod killed | killed | replaced | HTTP 1,200, gRPC 7 | **0** |"
    lossy = Finding("killed", "replaced", {"HTTP": Tally(answered=7, lost=Counter({"502": 2}))})
    assert row(fault, lossy).endswith("| HTTP 9 | HTTP 2 (502: 2); all answered when asked again |")
    assert row(fault, well).count("|") == HEAD[0].count("|") == HEAD[1].count("|")


def test_a_name_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pod-kiled"])
    assert "no such fault: pod-kiled; there are pod-killed, " in capsys.readouterr().err
