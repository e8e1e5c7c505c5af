from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInputError
from service.tensors import DTYPES, TensorSpec, element_count, from_raw, from_values, to_raw

NUMERIC = sorted(DTYPES.keys() - {"BYTES"})


@pytest.mark.parametrize("datatype", NUMERIC)
def test_raw_bytes_and_back(datatype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(DTYPES[datatype])
    raw = to_raw(array)
    assert len(raw) == 6 * DTYPES[datatype].itemsize
    found = from_raw("x", datatype, [2, 3], raw)
    assert found.dtype == DTYPES[datatype]
    np.testing.assert_array_equal(found, array)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_bytes_and_back(elements: list[bytes]) -> None:
    raw = to_raw(np.array([*elements, b""], np.object_)[:-1])
    assert from_raw("x", "BYTES", [len(elements)], raw).tolist() == elements


def test_strings_are_utf8() -> None:
    assert to_raw(np.array(["é"], np.object_)) == b"\x02\x00\x00\x00\xc3\xa9"


def test_numbers_are_a_view_of_what_came() -> None:
    content = bytearray(8)
    array = from_raw("x", "UINT8", [8], memoryview(content))
    content[3] = 7
    assert array.tolist()[3] == 7


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_too_few_or_too_many_bytes(size: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"'x' got {size} bytes: shape \[2,1\] of INT16 takes 4"):
        from_raw("x", "INT16", [2, 1], bytes(size))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([-1, 2], "no axis may be negative"),
        ([-1, -2], "no axis may be negative"),
        ([2**40, 2**40], "too many elements"),
        ([2**62, 4], "too many elements"),
        ([2**62, 0], "too many elements"),
        ([1] * 33, "33 axes: must be at most 32"),
        ([2**63 - 1] * 60_000, "60000 axes"),
    ],
)
def test_shapes_that_cannot_be(shape: list[int], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        element_count("x", shape)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "too few for 2 elements"),
        (b"\x01\x00\x00\x00a", "too few for 2 elements"),
        (struct.pack("<I", 100) + b"abcd", "element 0 of BYTES runs past the end"),
        (struct.pack("<I", 2**32 - 1) + b"abcd", "element 0 of BYTES runs past the end"),
        (struct.pack("<I", 4) + b"abcd", "exactly 2 elements"),
        (struct.pack("<I", 2) + b"ab" + b"\x00\x00", "element 1 of BYTES runs past the end"),
        (struct.pack("<I", 0) * 3, "exactly 2 elements"),
    ],
)
def test_broken_bytes(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        from_raw("x", "BYTES", [2], raw)


def test_a_shape_that_promises_much_costs_nothing() -> None:
    with pytest.raises(InvalidInputError, match="too few for 1000000000000 elements"):
        from_raw("x", "BYTES", [10**12], b"\x00" * 8)


@given(st.sampled_from(NUMERIC), st.lists(st.integers(-2, 300), max_size=6))
def test_values_fit_or_are_refused(datatype: str, values: list[int]) -> None:
    dtype = DTYPES[datatype]
    fits = dtype.kind not in "iu" or all(np.iinfo(str(dtype)).min <= v <= np.iinfo(str(dtype)).max for v in values)
    if fits:
        np.testing.assert_array_equal(from_values("x", datatype, [len(values)], values), np.array(values, dtype))
    else:
        with pytest.raises(InvalidInputError, match=f"its values are no {datatype}"):
            from_values("x", datatype, [len(values)], values)


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 1e300), ("FP16", 1e6)])
def test_a_number_that_is_too_large_is_not_infinity(datatype: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"its values are no {datatype}"):
        from_values("x", datatype, [2], [value, 1.0])
    assert from_values("x", datatype, [1], [float("inf")])[0] == float("inf")


def test_as_many_values_as_the_shape_says() -> None:
    with pytest.raises(InvalidInputError, match=r"got 3 elements: shape \[2,2\] of FP32 takes 4"):
        from_values("x", "FP32", [2, 2], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("shape", "fits"), [((3, 8), True), ((3, 0), True), ((2, 8), False), ((3,), False), ((3, 8, 1), False)]
)
def test_open_axes_fit_any_size(shape: tuple[int, ...], fits: bool) -> None:
    assert TensorSpec("x", "FP32", (3, -1)).fits(shape) is fits
