from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.class_strings import class_strings
from service.errors import InvalidInputError
from service.tensors import DTYPES, Array, TensorSpec

LABELS = ("cat", "dog", "bird", "")


def strings(values: Array, datatype: str = "FP32", count: int = 2, *, batched: bool = True) -> object:
    spec = TensorSpec("scores", datatype, (-1,))
    return class_strings(values, spec, LABELS, count, batched=batched).tolist()


def test_the_highest_values_first_with_index_and_label() -> None:
    values = np.array([[0.25, 3, -1], [1, 2, 30.5]], np.float32)
    assert strings(values) == [[b"3.000000:1:dog", b"0.250000:0:cat"], [b"30.500000:2:bird", b"2.000000:1:dog"]]


def test_no_more_than_there_are_and_no_label_where_it_is_empty_or_missing() -> None:
    values = np.array([[1, 2, 3, 4, 5]], np.float32)
    expected = [b"5.000000:4", b"4.000000:3", b"3.000000:2:bird", b"2.000000:1:dog", b"1.000000:0:cat"]
    assert strings(values, count=9) == [expected]


def test_without_a_batch_axis_there_is_none_in_the_answer() -> None:
    assert strings(np.array([[1], [2]], np.float32), batched=False) == [b"2.000000:1:dog", b"1.000000:0:cat"]


def test_equals_are_in_the_order_of_their_index() -> None:
    assert strings(np.zeros((1, 3), np.float32), count=3) == [
        [b"0.000000:0:cat", b"0.000000:1:dog", b"0.000000:2:bird"]
    ]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=3))
def test_unsigned_integers_are_plain_and_in_order(values: list[int]) -> None:
    (found,) = class_strings(
        np.array([values], np.uint8), TensorSpec("scores", "UINT8", (-1,)), (), 3, batched=True
    ).tolist()
    assert [int(string.split(b":")[0]) for string in found] == sorted(values, reverse=True)


@pytest.mark.parametrize("datatype", ["BYTES", "FP16"])
def test_datatypes_that_have_none(datatype: str) -> None:
    with pytest.raises(InvalidInputError, match=f"unsupported type '{datatype}'"):
        strings(np.zeros((1, 3), DTYPES[datatype]), datatype)
