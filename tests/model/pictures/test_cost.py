from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from model.pictures.cost import draw_cost
from model.pictures.cost_rows import CostRow

ROWS = [CostRow("small", 0.4, 0.03, 30_730), CostRow("large", 0.9, 300, 33_638_218), CostRow("third", 0.7, 4, 22_466)]


def test_accuracy_against_multiply_adds(figure: Figure) -> None:
    draw_cost(figure, ROWS)
    axes, bar = figure.axes
    (dots,) = axes.collections
    assert np.asarray(dots.get_offsets()).tolist() == [[row.mflops, row.accuracy] for row in ROWS]
    assert np.asarray(dots.get_array()).tolist() == [row.parameters for row in ROWS]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["small", "large", "third"]
    assert bar.get_ylabel() == "parameters"


@pytest.mark.parametrize("rows", [ROWS[:1], [*ROWS, CostRow("untold", 0.5, 1, None)]])
def test_one_row_and_untold_parameters(rows: list[CostRow], figure: Figure) -> None:
    draw_cost(figure, rows)
    assert len(figure.axes) == 1 + all(row.parameters for row in rows)
    figure.draw_without_rendering()
