"""Memory that a front and the engine have both mapped: the front writes a request's tensors, the engine reads them."""

from __future__ import annotations

import mmap
import os
from bisect import insort

ALIGNMENT_BYTES = 64
"""Of a place: a cache line, which is also what the widest vector loads want."""


class Arena:
    """The front's side, which says what lies where. First fit, and freed neighbours become one.

    Args:
        descriptor: of memory that is as large as the arena.
    """

    def __init__(self, descriptor: int) -> None:
        self.memory = mapped(descriptor)
        self._free = [(0, len(self.memory))]
        """Places that are free, as (offset, size in bytes), by their offsets."""

    def place(self, size_bytes: int) -> int | None:
        """The offset of a place of so many bytes, taken from now on; None where there is no room."""
        size_bytes = aligned(max(size_bytes, 1))
        for index, (offset, free_bytes) in enumerate(self._free):
            if free_bytes > size_bytes:
                self._free[index] = (offset + size_bytes, free_bytes - size_bytes)
                return offset
            if free_bytes == size_bytes:
                del self._free[index]
                return offset
        return None

    def free(self, offset: int, size_bytes: int) -> None:
        """Give a place back; the size as it was asked for."""
        place = (offset, aligned(max(size_bytes, 1)))
        insort(self._free, place)
        index = self._free.index(place)
        for left in (index, index - 1):
            if 0 <= left < len(self._free) - 1:
                (begin, length), (next_begin, next_length) = self._free[left : left + 2]
                if begin + length == next_begin:
                    self._free[left : left + 2] = [(begin, length + next_length)]


def memory_file(size_bytes: int) -> int:
    """The descriptor of new memory, which is gone with the last process that has it open or mapped."""
    descriptor = os.memfd_create("fovea-front")
    os.ftruncate(descriptor, size_bytes)
    return descriptor


def mapped(descriptor: int) -> mmap.mmap:
    """All of the memory behind a descriptor, which may be closed then."""
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)


def aligned(size_bytes: int) -> int:
    """So many bytes, or the few more that end where the next place may begin."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
