from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from model.pictures.figure import PictureError
from model.pictures.filters import draw_filters
from model.pictures.weights import weight_images
from model.run import Run


@pytest.mark.parametrize(
    ("net", "count", "side"),
    [("lenet", 6, 5), ("fastcnn", 24, 2), ("conv:N=1,M=1,filters=8,F=3,P=1", 8, 3)],
)
def test_the_filters_of_the_first_layer(
    net: str, count: int, side: int, run_of: Callable[[str], Run], figure: Figure
) -> None:
    run = run_of(net)
    draw_filters(figure, run)
    (axes,) = figure.axes
    weights = next(iter(run.net.parameters()))
    assert weights.shape == (count, 3, side, side)
    for image, expected in zip(axes.images, weight_images(run, weights), strict=True):
        assert np.array_equal(np.asarray(image.get_array()), expected)
    assert axes.get_title(loc="left") + axes.get_title() == f"{net}: its {count} first filters, {side}x{side}"


@pytest.mark.parametrize("net", ["linear", "two_layer", "hog"])
def test_a_network_without_convolution_has_none(net: str, run_of: Callable[[str], Run], figure: Figure) -> None:
    with pytest.raises(
        PictureError, match=f"{net} does not begin with a convolution of all channels: it has no filters"
    ):
        draw_filters(figure, run_of(net))
