"""How many hostile inputs a run tried, in all of its processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz.campaign import TRIED

KEY = "hostile inputs tried"

# The same examples each time, however long a machine that is busy takes for one.
settings.register_profile("fovea", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fovea")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # pytest-xdist's, in a process that it has started.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[KEY] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # One that crashed has none.
    TRIED.update(getattr(node, "workeroutput", {}).get(KEY, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        terminalreporter.section(KEY)
        for name, count in sorted(TRIED.items()):
            terminalreporter.line(f"{name}: {count}")
