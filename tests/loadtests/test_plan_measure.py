from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from loadtests.plan.measure import measure_points
from tests.repositories import graph

CPU = "CPUExecutionProvider"


def test_every_power_of_two_and_the_largest(tmp_path: Path) -> None:
    onnx.save(graph(8), tmp_path / "model.onnx")
    points, padded = measure_points(tmp_path / "model.onnx", CPU, instances=2, max_batch_size=5, repeats=3)
    assert [point.batch_size for point in points] == [1, 2, 4, 5]
    assert not padded
    for point in points:
        assert list(point.likely_ms) == sorted(point.likely_ms)
        assert 0 < point.likely_ms[0] <= point.median_ms <= point.likely_ms[-1]


def test_a_graph_of_one_batch_size_is_measured_at_that_and_padded_to_it(tmp_path: Path) -> None:
    model = graph(8)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "model.onnx")
    points, padded = measure_points(tmp_path / "model.onnx", CPU, instances=1, max_batch_size=4, repeats=2)
    assert [point.batch_size for point in points] == [4]
    assert padded


def test_a_graph_of_open_shape_is_refused(tmp_path: Path) -> None:
    model = graph(8)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"'pixels' is tensor.*height.*of fixed shape"):
        measure_points(tmp_path / "model.onnx", CPU, instances=1, max_batch_size=4, repeats=2)
