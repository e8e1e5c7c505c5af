from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from service.errors import NotFoundError
from service.shared_memory import FOLDER, Place, SharedMemory


@pytest.fixture
def path() -> Iterator[Path]:
    """An object of shared memory with 64 bytes."""
    path = FOLDER / f"fovea-test-{uuid4().hex}"
    path.write_bytes(bytes(range(64)))
    yield path
    path.unlink()


def descriptors(path: Path) -> int:
    """How often this process has a file open."""
    open_files = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    return sum(file.is_symlink() and os.readlink(file) == str(path) for file in open_files)


def test_a_region_that_is_being_read_stays_open_until_then(path: Path) -> None:
    memory = SharedMemory(system=True, cuda=None)
    memory.register_system("region", path.name, 0, 64)
    region = memory.require(Place("region", 4, 8))
    memory.unregister_system("region")
    with pytest.raises(NotFoundError):
        memory.read(Place("region", 4, 8))
    assert region.read(4, 8) == bytes(range(4, 12))
    assert descriptors(path) == 1
    del region
    assert descriptors(path) == 0


def test_nothing_stays_open_at_the_end(path: Path) -> None:
    memory = SharedMemory(system=True, cuda=None)
    memory.register_system("region", path.name, 0, 64)
    memory.register_system("another", path.name, 8, 8)
    assert descriptors(path) == 2
    memory.close()
    assert descriptors(path) == 0
