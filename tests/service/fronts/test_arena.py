"""Places in the memory between a front and the engine."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from service.fronts.arena import ALIGNMENT_BYTES, Arena, mapped, memory_file

SIZE_BYTES = 64 * 1024


def arena() -> Arena:
    descriptor = memory_file(SIZE_BYTES)
    made = Arena(descriptor)
    os.close(descriptor)
    return made


@given(st.lists(st.one_of(st.integers(0, 9000), st.integers(-50, -1)), max_size=80))
def test_places_never_overlap_and_all_of_it_comes_back(steps: list[int]) -> None:
    """A number takes a place of so many bytes; a negative one gives one of those taken back."""
    memory, taken = arena(), list[tuple[int, int]]()
    for step in steps:
        if step < 0 and taken:
            memory.free(*taken.pop(step % len(taken)))
        elif step >= 0 and (offset := memory.place(step)) is not None:
            assert offset % ALIGNMENT_BYTES == 0
            assert offset + step <= SIZE_BYTES
            assert all(offset + step <= begin or begin + size <= offset for begin, size in taken)
            taken.append((offset, max(step, 1)))
    for place in taken:
        memory.free(*place)
    assert memory.place(SIZE_BYTES) == 0


def test_a_full_arena_says_so() -> None:
    memory = arena()
    assert memory.place(SIZE_BYTES + 1) is None
    assert memory.place(SIZE_BYTES) == 0
    assert memory.place(0) is None


def test_what_one_side_writes_the_other_reads() -> None:
    descriptor = memory_file(SIZE_BYTES)
    writing, reading = mapped(descriptor), mapped(descriptor)
    os.close(descriptor)
    writing[100:105] = b"fovea"
    assert reading[100:105] == b"fovea"
