"""Files that are replaced while the service runs: certificates, keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Never

from service.errors import StartError

log = logging.getLogger("fovea")

INTERVAL_S = 1.0

State = tuple[tuple[int, int, int] | None, ...]


def state_of(files: Sequence[Path]) -> State:
    """What changes with the files: where a path leads (Kubernetes swaps a symlink), when it was written, how long."""
    return tuple(_state_of(file) for file in files)


async def follow(files: Sequence[Path], state: State, reload: Callable[[], None]) -> Never:
    """Have the files read again, in a thread, whenever they have changed.

    Args:
        state: theirs before they were read first.
        reload: raises StartError where it keeps what it has; that is logged, once for each change.
    """
    while True:
        await asyncio.sleep(INTERVAL_S)
        now = await asyncio.to_thread(state_of, files)
        if now == state:
            continue
        state = now
        names = ", ".join(map(str, files))
        try:
            await asyncio.to_thread(reload)
        except StartError as error:
            log.error("what was read before is kept: %s", error)
        else:
            log.info("read again: %s", names)


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
