from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from model.pictures.labels import label_points


@pytest.mark.parametrize("seed", range(3))
def test_names_cover_neither_each_other_nor_a_point(seed: int, figure: Figure) -> None:
    """Also where twelve points are crowded on a fifth of the height and of the width."""
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.uniform(0.75, 0.95, (12, 2))]
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    notes = label_points(axes, points, [f"classifier {i}" for i in range(12)])
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(note, renderer) for note in notes]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1
        assert not any(box.contains(x, y) for x, y in axes.transData.transform(points))


def test_a_name_alone_is_beside_its_point(figure: Figure) -> None:
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    (note,) = label_points(axes, [(0.5, 0.5)], ["alone"])
    right, above = note.get_position()
    assert 0 < right < 40
    assert above == 0
    assert note.arrow_patch
    assert not note.arrow_patch.get_visible()
