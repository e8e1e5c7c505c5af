"""Tensors as they travel: the protocol's datatypes, and raw bytes to arrays and back.

Raw tensors are little-endian and row-major; a BYTES element is its length as uint32 and its bytes
(Open Inference Protocol, extension "binary tensor data"; `raw_input_contents` in gRPC).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from service.errors import InvalidInputError

Array = npt.NDArray[np.generic]

DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""The protocol's datatypes, but for BF16, which numpy has no word for."""

Tensors = tuple[Array, ...]
"""One item: a model's inputs, or its outputs, in the order of its configuration."""

MAX_ELEMENTS = 2**40
"""More than any message can hold: the bound that keeps a shape's product a machine number."""
MAX_AXES = 32


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or gives; `dims` without the batch axis, -1 for any size."""

    name: str
    datatype: str
    dims: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.dims) and all(
            want in (-1, have) for want, have in zip(self.dims, shape, strict=True)
        )


@dataclass(frozen=True)
class Graph:
    """What a graph says of itself: its tensors with every axis, -1 where the size is open."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def element_count(name: str, shape: Sequence[int]) -> int:
    """The product of a shape that a client sent.

    Raises:
        InvalidInputError: too many axes, a negative one, or an absurd product.
    """
    # First, since the product of very many axes takes very long.
    if len(shape) > MAX_AXES:
        raise InvalidInputError(f"input '{name}' has {len(shape)} axes: must be at most {MAX_AXES}")
    if any(size < 0 for size in shape):
        raise InvalidInputError(f"input '{name}' has shape {_listed(shape)}: no axis may be negative")
    # An axis of zero does not make the others fit in memory.
    if prod(size for size in shape if size) > MAX_ELEMENTS:
        raise InvalidInputError(f"input '{name}' has shape {_listed(shape)}: too many elements")
    return prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], content: bytes | memoryview) -> Array:
    """Raw bytes to an array; without a copy, but for BYTES.

    Raises:
        InvalidInputError: the bytes do not make up the shape.
    """
    count = element_count(name, shape)
    view = memoryview(content)
    if datatype == "BYTES":
        return np.array(_split(name, view, count), np.object_).reshape(shape)
    dtype = DTYPES[datatype]
    expected = count * dtype.itemsize
    if view.nbytes != expected:
        raise InvalidInputError(
            f"input '{name}' got {view.nbytes} bytes: shape {_listed(shape)} of {datatype} takes {expected}"
        )
    return np.frombuffer(view, dtype).reshape(shape)


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[object]) -> Array:
    """A flat list of numbers, truth values or bytes to an array.

    Raises:
        InvalidInputError: they are not as many as the shape says, or do not fit in the datatype.
    """
    count = element_count(name, shape)
    if len(values) != count:
        raise InvalidInputError(
            f"input '{name}' got {len(values)} elements: shape {_listed(shape)} of {datatype} takes {count}"
        )
    try:
        with np.errstate(over="raise"):
            return np.array(values, DTYPES[datatype]).reshape(shape)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InvalidInputError(f"input '{name}': its values are no {datatype}: {error}") from None


def to_raw(array: Array) -> bytes:
    """An array to raw bytes."""
    if array.dtype != np.object_:
        return array.tobytes()
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        content = element if isinstance(element, bytes) else str(element).encode()
        parts += (struct.pack("<I", len(content)), content)
    return b"".join(parts)


def _split(name: str, view: memoryview, count: int) -> list[bytes]:
    # Every element takes 4 bytes at least: a shape that promises more is refused before anything is made of it.
    if count * 4 > view.nbytes:
        raise InvalidInputError(f"input '{name}' got {view.nbytes} bytes: too few for {count} elements of BYTES")
    elements: list[bytes] = []
    at = 0
    while at < view.nbytes and len(elements) < count:
        (length,) = struct.unpack_from("<I", view, at) if at + 4 <= view.nbytes else (view.nbytes,)
        if at + 4 + length > view.nbytes:
            raise InvalidInputError(f"input '{name}': element {len(elements)} of BYTES runs past the end of its data")
        elements.append(bytes(view[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != view.nbytes or len(elements) != count:
        raise InvalidInputError(f"input '{name}': its data does not hold exactly {count} elements of BYTES")
    return elements


def _listed(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
