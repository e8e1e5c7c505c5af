"""Shapes and datatypes of tensors, which the two ends of a link tell each other once and then call by a number."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from service.fronts.arena import aligned
from service.tensors import Array, Tensors

MAX_LAYOUTS = 1024

Key = tuple[tuple[tuple[int, ...], np.dtype[np.generic]], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of each tensor lie, counted from where the first one's begin.

    Attributes:
        places: shape, datatype and offset of each.
        objects: whether some have elements of no fixed size (BYTES); then all of them travel pickled.
    """

    number: int
    places: tuple[tuple[tuple[int, ...], np.dtype[np.generic], int], ...]
    size_bytes: int
    objects: bool

    def write(self, memory: Any, offset: int, tensors: Tensors) -> None:
        """Copy tensors into a buffer."""
        for (shape, dtype, begin), tensor in zip(self.places, tensors, strict=True):
            np.ndarray(shape, dtype, memory, offset + begin)[...] = tensor

    def read(self, memory: Any, offset: int) -> Tensors:
        """The tensors in a buffer, not copied."""
        return tuple([np.ndarray(shape, dtype, memory, offset + begin) for shape, dtype, begin in self.places])

    def pack(self, tensors: Tensors) -> bytes:
        """As they travel in a frame."""
        if self.objects:
            return pickle.dumps(tensors)
        content = bytearray(self.size_bytes)
        self.write(content, 0, tensors)
        return bytes(content)

    def unpack(self, content: memoryview) -> Tensors:
        """As `pack` made it, copied."""
        if self.objects:
            tensors: tuple[Array, ...] = pickle.loads(content)
            return tensors
        return self.read(bytes(content), 0)


class SentLayouts:
    """Args:
    tell: sends a layout to the other end, before what uses it.
    """

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._layouts: dict[Key, Layout] = {}

    def of(self, tensors: Tensors) -> Layout:
        key = tuple([(tensor.shape, tensor.dtype) for tensor in tensors])
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) == MAX_LAYOUTS:
                # The other end forgets each as its number comes again.
                self._layouts.clear()
            number = len(self._layouts)
            self._tell(pickle.dumps((number, key)))
            found = self._layouts[key] = _layout(number, key)
        return found


class ReceivedLayouts:
    """Those of the other end."""

    def __init__(self) -> None:
        self._layouts: dict[int, Layout] = {}

    def take(self, body: memoryview) -> None:
        number, key = pickle.loads(body)
        self._layouts[number] = _layout(number, key)

    def __getitem__(self, number: int) -> Layout:
        return self._layouts[number]


def _layout(number: int, key: Key) -> Layout:
    places, at = [], 0
    for shape, dtype in key:
        places.append((shape, dtype, at))
        at += aligned(prod(shape) * dtype.itemsize)
    return Layout(number, tuple(places), at, any(dtype.hasobject for _, dtype in key))
