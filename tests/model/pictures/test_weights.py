from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from model.nets import NETS
from model.pictures.weights import first_layer, weight_images
from model.run import Run


# The colour histogram, which comes before its only layer, has no weights.
@pytest.mark.parametrize("name", sorted(set(NETS) - {"colour_histogram"}))
def test_the_first_layer_sees_the_channels_or_the_pixels(name: str) -> None:
    with torch.device("meta"):
        layer = first_layer(NETS[name](10, (3, 64, 64)))
    if isinstance(layer, nn.Conv2d):
        assert layer.in_channels == 3
    else:
        assert isinstance(layer, nn.Linear)
        assert layer.in_features == 3 * 64 * 64


def test_grey_is_nothing_and_the_largest_weight_is_black_or_white(run_of: Callable[[str], Run]) -> None:
    run = run_of("linear")
    red, green, blue = run.preprocess.std.flatten().tolist()
    weights = torch.zeros(3, 3, 2, 2)
    weights[0, :, 0, 1] = torch.tensor([4 * red, -2 * green, 0])
    weights[1, 2, 1, 0] = -0.001 * blue
    images = weight_images(run, weights)
    assert images.shape == (3, 2, 2, 3)
    assert images[0, 0, 1] == pytest.approx([1, 0.25, 0.5])
    assert images[1, 1, 0] == pytest.approx([0.5, 0.5, 0])
    assert np.count_nonzero(images != 0.5) == 3
