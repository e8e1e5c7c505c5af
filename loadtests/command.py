"""How every command line here begins and ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the code that `main` returns. SIGTERM ends it as SIGINT does: what it has started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
