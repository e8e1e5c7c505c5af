from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from loadtests.command import run


@pytest.fixture(autouse=True)
def _sigterm_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_exit_code_is_what_the_command_returns() -> None:
    with pytest.raises(SystemExit) as exited:
        run(lambda: 3)
    assert exited.value.code == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_either_signal_unwinds_the_command(number: signal.Signals) -> None:
    stopped = []

    def command() -> int:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            stopped.append(number)
        return 0

    with pytest.raises(SystemExit) as exited:
        run(command)
    assert (exited.value.code, stopped) == (130, [number])
