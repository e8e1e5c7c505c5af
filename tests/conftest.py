"""How many hostile inputs a run tried, in all of its processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz.campaign import TRIED

KEY = "hostile inputs tried"


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
