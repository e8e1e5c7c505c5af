"""Tensors as they travel between a front and the engine."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.fronts import layouts
from service.fronts.layouts import ReceivedLayouts, SentLayouts
from service.tensors import Array, Tensors

ANY_TENSORS = st.lists(
    hnp.arrays(st.sampled_from([np.uint8, np.float16, np.float32, np.int64, np.bool_]), hnp.array_shapes(max_side=5)),
    min_size=1,
    max_size=3,
).map(tuple)


def both_ends() -> tuple[SentLayouts, ReceivedLayouts, list[bytes]]:
    received, told = ReceivedLayouts(), list[bytes]()

    def tell(body: bytes) -> None:
        told.append(body)
        received.take(memoryview(body))

    return SentLayouts(tell), received, told


def equal(some: Tensors, others: Tensors) -> bool:
    def same(one: Array, other: Array) -> bool:
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()

    return len(some) == len(others) and all(map(same, some, others))


@given(ANY_TENSORS)
def test_in_a_frame(tensors: Tensors) -> None:
    sent, received, _ = both_ends()
    layout = sent.of(tensors)
    assert equal(received[layout.number].unpack(memoryview(layout.pack(tensors))), tensors)


@given(ANY_TENSORS, st.integers(0, 3))
def test_in_memory(tensors: Tensors, places: int) -> None:
    sent, received, _ = both_ends()
    layout, offset = sent.of(tensors), 64 * places
    memory = bytearray(offset + layout.size_bytes)
    layout.write(memory, offset, tensors)
    assert equal(received[layout.number].read(memory, offset), tensors)


def test_strings_travel_too() -> None:
    sent, received, _ = both_ends()
    words = (np.array([b"a", b"longer"], np.object_), np.zeros(3, np.float32))
    layout = sent.of(words)
    assert layout.objects
    found = received[layout.number].unpack(memoryview(layout.pack(words)))
    assert found[0].tolist() == [b"a", b"longer"]
    assert equal(found[1:], words[1:])


def test_what_is_not_contiguous() -> None:
    sent, received, _ = both_ends()
    tensors = (np.arange(24, dtype=np.int64).reshape(2, 3, 4).transpose(2, 0, 1),)
    layout = sent.of(tensors)
    assert equal(received[layout.number].unpack(memoryview(layout.pack(tensors))), tensors)


def test_a_layout_is_told_once() -> None:
    sent, _, told = both_ends()
    for _ in range(3):
        sent.of((np.zeros(2, np.uint8),))
    assert len(told) == 1


def test_endless_shapes_are_no_endless_memory() -> None:
    sent, received, told = both_ends()
    for side in range(layouts.MAX_LAYOUTS + 10):
        tensors = (np.full(side, 7, np.uint8),)
        layout = sent.of(tensors)
        assert layout.number < layouts.MAX_LAYOUTS
        assert equal(received[layout.number].unpack(memoryview(layout.pack(tensors))), tensors)
    assert len(told) == layouts.MAX_LAYOUTS + 10
