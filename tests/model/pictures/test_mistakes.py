from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from model.data import Dataset
from model.pictures.figure import PictureError
from model.pictures.mistakes import COLUMNS, ROWS, draw_mistakes


def test_the_surest_mistakes_come_first(shapes: Dataset, figure: Figure) -> None:
    dataset = shapes.subset(np.array([0, 1, 2]))
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.05, 0.9, 0.05], [0.75, 0.15, 0.1]], np.float32))
    draw_mistakes(figure, dataset, logits)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["disc 0.75\nis cross", "square 0.50\nis disc"]
    for image, index in zip(axes.images, (2, 0), strict=True):
        assert np.array_equal(np.asarray(image.get_array()), dataset.images[index])
    assert "on 3 images, all 2" in axes.get_title(loc="left") + axes.get_title()


def test_there_are_no_more_than_can_be_seen(shapes: Dataset, figure: Figure) -> None:
    draw_mistakes(figure, shapes, np.eye(3, dtype=np.float32)[(shapes.labels + 1) % 3])
    (axes,) = figure.axes
    assert len(axes.images) == COLUMNS * ROWS
    assert f"the {COLUMNS * ROWS} surest of 96" in axes.get_title(loc="left") + axes.get_title()


def test_without_mistakes_there_is_no_picture(shapes: Dataset, figure: Figure) -> None:
    with pytest.raises(PictureError, match="all 96 images are classified right"):
        draw_mistakes(figure, shapes, np.eye(3, dtype=np.float32)[shapes.labels])
