from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from model.pictures.tiles import GAP, columns_for, draw_tiles, in_rows, shortened


def test_tiles_lie_in_rows_below_their_captions(figure: Figure) -> None:
    tiles = [np.full((2, 2), i / 3, np.float32) for i in range(3)]
    captions = [["a", "b"], ["c"]]
    axes = draw_tiles(figure, in_rows(tiles, 2), side_inches=1, title="three", captions=captions)
    corners = [[*image.get_extent()] for image in axes.images]
    (left, right, bottom, top), second, third = corners
    assert (left, right) == (0, 1)
    assert bottom - top == 1
    assert second == [1 + GAP, 2 + GAP, bottom, top]
    assert third[:2] == [0, 1]
    assert third[3] > bottom
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
    assert top > axes.texts[0].get_position()[1] > 0
    assert bottom < axes.texts[2].get_position()[1] < third[3]
    for image, tile in zip(axes.images, tiles, strict=True):
        assert np.array_equal(np.asarray(image.get_array()), tile)
        assert image.get_clim() == (0, 1)


def test_a_tile_has_the_side_that_was_asked_for(figure: Figure) -> None:
    axes = draw_tiles(figure, [[np.zeros((5, 5, 3), np.uint8)] * 4], side_inches=0.5, title="")
    figure.draw_without_rendering()
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    assert (right - left) / figure.dpi == pytest.approx(0.5)


def test_rows_have_names(figure: Figure) -> None:
    rows = [[np.zeros((1, 1), np.uint8)]] * 2
    axes = draw_tiles(figure, rows, side_inches=1, title="", row_names=["above", "below"])
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [("above", 0.5), ("below", 1.5 + GAP)]


@pytest.mark.parametrize(
    ("count", "wide", "columns"),
    [(1, 1, 1), (2, 2.5, 2), (10, 2.5, 5), (100, 1, 10), (64, 1, 8), (16, 2, 8), (20, 1.6, 5), (7, 2, 4)],
)
def test_columns(count: int, wide: float, columns: int) -> None:
    assert columns_for(count, wide=wide) == columns


def test_long_names_are_cut() -> None:
    assert shortened("automobile") == "automobile"
    assert shortened("soft-coated wheaten terrier") == "soft-coated whe…"
