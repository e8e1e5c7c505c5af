from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from service.backends.instance import Instance
from service.errors import InferenceError
from service.tensors import Array, Graph, TensorSpec

X, Y = TensorSpec("x", "FP32", (2,)), TensorSpec("y", "FP32", (2,))


class Doubling:
    provider = "CPUExecutionProvider"
    graph = Graph((X,), (Y,))
    slow_at_new_sizes = False

    def __init__(self, rows_at_once: int | None = None) -> None:
        self.rows_at_once = rows_at_once
        self.sizes: list[int] = []

    def room(self, rows: int) -> None: ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        assert list(outputs) == ["y"]
        self.sizes.append(len(inputs["x"]))
        doubled: Array = np.asarray(inputs["x"], np.float32) * 2
        return [doubled]

    def close(self) -> None: ...


def items(*rows: int) -> list[tuple[Array]]:
    numbers = iter(range(sum(rows) * 2))
    return [(np.array([[next(numbers), next(numbers)] for _ in range(count)], np.float32),) for count in rows]


def instance(session: Doubling, **options: object) -> Instance:
    return Instance(session, [X], [Y], batched=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "rows_at_once", "sizes"),
    [
        ((1, 2, 3), None, [6]),
        ((1, 2, 3), 6, [6]),
        ((1, 2, 3), 4, [4, 2]),
        ((5,), 2, [2, 2, 1]),
        ((1, 1), 1, [1, 1]),
    ],
)
def test_a_large_batch_is_run_in_parts(rows: tuple[int, ...], rows_at_once: int | None, sizes: list[int]) -> None:
    session = Doubling(rows_at_once)
    given = items(*rows)
    results = instance(session).run(given).results
    assert session.sizes == sizes
    for (found,), (sent,) in zip(results, given, strict=True):
        np.testing.assert_array_equal(found, np.asarray(sent, np.float32) * 2)


def test_sizes_that_the_session_must_see_are_not_cut() -> None:
    session = Doubling(2)
    (result,) = instance(session, batch_sizes=[1, 4]).run(items(3)).results
    assert session.sizes == [4]
    assert result[0].shape == (3, 2)


def test_parts_without_a_row_for_each_are_an_error() -> None:
    class Sum(Doubling):
        def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
            return [np.zeros((1, 2), np.float32)]

    with pytest.raises(InferenceError, match=r"the graph gives \[3\] rows for 5"):
        instance(Sum(2)).run(items(5))
