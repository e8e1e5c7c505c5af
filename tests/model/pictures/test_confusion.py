from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from model.evaluate import report
from model.pictures.confusion import MOST_WITH_FIGURES, draw_confusion


def test_shares_as_colours_and_counts_as_figures(figure: Figure) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    draw_confusion(figure, report(logits, np.array([0, 0, 0, 1]), ("a", "b", "c")))
    axes, _ = figure.axes
    shares = np.asarray(axes.images[0].get_array())
    assert shares == pytest.approx(np.array([[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 0]]))
    assert [text.get_text() for text in axes.texts] == ["1", "2", "0", "0", "1", "0", "0", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_many_classes_have_no_figures(figure: Figure) -> None:
    count = MOST_WITH_FIGURES + 1
    labels = np.arange(count)
    draw_confusion(figure, report(np.eye(count, dtype=np.float32), labels, tuple(map(str, labels))))
    axes, _ = figure.axes
    assert not axes.texts
    assert len(axes.get_xticklabels()) == count
